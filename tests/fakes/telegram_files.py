"""The files that people have sent: what `getFile` names and the download path serves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tests.fakes.telegram_checks import Json, Refusal

LINK_LIVES = 3600  # seconds that a download path is promised to work after getFile


@dataclass
class Stored:
    file_id: str
    path: str
    data: bytes
    size: int
    offered: float | None = None  # when getFile named its path last

    def api(self) -> Json:
        return {"file_id": self.file_id, "file_unique_id": f"u{self.file_id}", "file_size": self.size}


class Files:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._by_id: dict[str, Stored] = {}
        self._by_path: dict[str, Stored] = {}

    def store(self, data: bytes, folder: str, name: str, size: int | None = None) -> Stored:
        number = len(self._by_id)
        path = f"{folder}/file_{number}{PurePosixPath(name).suffix}"
        stored = Stored(f"AgAD{number:06}", path, data, len(data) if size is None else size)
        self._by_id[stored.file_id] = self._by_path[path] = stored
        return stored

    def find(self, file_id: str) -> Stored | None:
        return self._by_id.get(file_id)

    def download(self, path: str) -> bytes:
        """Raises `Refusal` (404) for an unknown path and for one whose hour is over."""
        stored = self._by_path.get(path)
        if stored is None or stored.offered is None or self.clock() - stored.offered > LINK_LIVES:
            raise Refusal(404, "Not Found")
        return stored.data
