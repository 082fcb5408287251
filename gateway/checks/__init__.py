"""What `lunar check` looks at: each module looks at one side of the machine, `table.py` lists them all."""
