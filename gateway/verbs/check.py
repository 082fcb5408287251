"""`lunar check`: loads the configuration and names every problem."""

from __future__ import annotations

import os

from gateway import config_file
from gateway.config_problem import located
from gateway.daemon import Daemon
from gateway.errors import ConfigError


def main(config: str | None) -> int:
    """Print what was found; raises `ConfigError` with every problem."""
    source = config_file.read(config_file.find(config))
    settings = config_file.resolve(source)
    problems = _unusable(settings.data_dir)
    try:
        Daemon(settings)  # what it refuses to be built of is found before it is run
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError([located(problem, source.places) for problem in problems])
    print(f"{source.places.file or 'built-in defaults'}: no problems")
    print(f"data      {settings.data_dir}")
    print(f"http      http://{settings.http.host}:{settings.http.port}/")
    print(f"socket    {settings.socket}")
    for name, agent in settings.agents.items():
        print(f"agent     {name}: model {agent.model} ({settings.models[agent.model].name})")
    return 0


def _unusable(data_dir: os.PathLike[str]) -> list[str]:
    path = os.path.abspath(data_dir)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    if not os.path.isdir(path):
        return [f"data_dir: {path} is not a directory"]
    if not os.access(path, os.W_OK | os.X_OK):
        return [f"data_dir: {path} cannot be written by this user"]
    return []
