"""What the subcommands of `lunar` do; one module each, imported only when it is asked for."""
