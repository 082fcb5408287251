"""`lunar run`: the daemon in the foreground."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import sys

import uvloop

from gateway import banner, collector, config_file, heap, log, systemd
from gateway.config_file import Loaded
from gateway.config_problem import located
from gateway.daemon import Daemon
from gateway.errors import ConfigError, GatewayError


def main(config: str | None, verbose: bool) -> int:
    """Run until SIGTERM or SIGINT. Raises `GatewayError` where the start fails."""
    heap.share()
    source = config_file.read(config_file.find(config))
    settings = config_file.resolve(source)
    log.configure(config_file.secrets(settings), level=logging.DEBUG if verbose else logging.INFO)
    faulthandler.enable()  # the watchdog's SIGABRT then leaves in the journal where every thread was
    failure: GatewayError | None = None

    def read() -> Loaded:
        # The file that we began with: one that is gone must not count as a wish for the defaults.
        return config_file.settle(config_file.read(source.places.file or config_file.find(config)))

    async def life() -> None:
        nonlocal failure
        try:
            greet = banner.show if sys.stderr.isatty() else None
            await Daemon(settings, greet, systemd.inherited(), read).run()
        except GatewayError as error:
            failure = error

    gc.freeze()  # what was loaded so far stays: no later pass of the collector need look at it
    collector.keep_off()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
    if isinstance(failure, ConfigError):
        raise ConfigError([located(problem, source.places) for problem in failure.problems])
    if failure is not None:
        raise failure
    return 0
