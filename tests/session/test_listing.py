"""Deleting a session takes along what came with it, and nothing of anybody else."""

from pathlib import Path

from session import ids, listing
from session.events import System, User
from session.ids import Peer, PeerId, Provider, SessionId
from session.transcript import Transcript


def wrote(data_dir: Path, provider: str, peer: str, *messages: str) -> SessionId:
    session = ids.session_id("main", Peer(Provider(provider), PeerId(peer)))
    folder = data_dir / "sessions"
    folder.mkdir(exist_ok=True)
    header = System(name="session", content=session, format=1)
    transcript = Transcript(folder / ids.file_name(session), writable=True, header=header)
    transcript.append([User(content="look", id=id) for id in messages])
    transcript.close()
    return session


def test_media_of_a_session_go_with_it(tmp_path: Path) -> None:
    media = tmp_path / "media" / "telegram"
    media.mkdir(parents=True)
    for name in ("7_1.jpg", "7_2.pdf.wanted", "7_10.jpg", "8_1.jpg"):
        (media / name).touch()
    seven = wrote(tmp_path, "telegram", "user:7", "7_1", "7_2")
    wrote(tmp_path, "telegram", "user:8", "8_1")
    assert listing.remove(tmp_path, seven)
    assert {path.name for path in media.iterdir()} == {"7_10.jpg", "8_1.jpg"}
    assert not listing.remove(tmp_path, seven)


def test_a_client_that_chooses_its_ids_reaches_no_file_of_another_channel(tmp_path: Path) -> None:
    media = tmp_path / "media" / "telegram"
    media.mkdir(parents=True)
    (media / "7_1.jpg").touch()
    assert listing.remove(tmp_path, wrote(tmp_path, "webchat", "session:0123456789abcdef", "7_1"))
    assert (media / "7_1.jpg").exists()
