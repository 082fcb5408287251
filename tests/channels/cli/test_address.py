"""Where the socket is."""

import os
from pathlib import Path

import pytest

from channels.cli import address
from channels.cli.address import LONGEST, SocketPathTooLong, UnsafeDirectory, prepare_directory, socket_path

DEEP = Path("/" + "x" * 200)


def test_beside_the_data_unless_configured() -> None:
    assert socket_path(None, Path("/var/lib/lunar")) == Path("/var/lib/lunar/lunar.sock")
    assert socket_path(Path("/run/l.sock"), Path("/var/lib/lunar")) == Path("/run/l.sock")


def test_a_configured_path_that_is_too_long_is_refused() -> None:
    fits = Path("/" + "x" * (LONGEST - 1))
    assert socket_path(fits, Path("/")) == fits
    for path in (Path("/" + "x" * LONGEST), Path("/" + "ü" * 54)):
        with pytest.raises(SocketPathTooLong, match="at most 107"):
            socket_path(path, Path("/"))


def test_a_default_that_is_too_long_gives_way_to_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    path = socket_path(None, DEEP)
    assert path.parent == Path("/run/user/1000")
    assert path == socket_path(None, DEEP)
    assert path != socket_path(None, DEEP / "y")
    for useless in ("", "/" + "y" * 90):
        monkeypatch.setenv("XDG_RUNTIME_DIR", useless)
        path = socket_path(None, DEEP)
        assert path.parent == Path(f"/tmp/lunar-{os.getuid()}")
        assert len(os.fsencode(path)) <= LONGEST


def test_the_directory_is_made_for_its_owner_alone(folder: Path) -> None:
    prepare_directory(folder / "a" / "lunar.sock")
    assert (folder / "a").stat().st_mode & 0o777 == 0o700
    prepare_directory(folder / "a" / "lunar.sock")


def test_the_directory_in_tmp_must_be_ours_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = folder / "shared"
    monkeypatch.setattr(
        address, "Path", lambda *parts: shared if str(parts[0]).startswith("/tmp") else Path(*parts)
    )
    prepare_directory(shared / "lunar.sock")
    shared.chmod(0o755)
    with pytest.raises(UnsafeDirectory):
        prepare_directory(shared / "lunar.sock")
    shared.rmdir()
    (folder / "elsewhere").mkdir(mode=0o700)
    shared.symlink_to(folder / "elsewhere")
    with pytest.raises(UnsafeDirectory):
        prepare_directory(shared / "lunar.sock")
