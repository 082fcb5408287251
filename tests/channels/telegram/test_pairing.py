"""Codes for strangers, and the owner's decisions, kept over restarts."""

import json
import os
from pathlib import Path

import pytest

from channels.telegram.journal import Journal
from channels.telegram.pairing import FILE, GUESSES, LIFETIME, OPEN_PER_CHAT, Code, Pairing, TooManyGuesses
from tests.channels.telegram.stage import Time


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def opened(path: Path, time: Time) -> Pairing:
    pairing = Pairing(Journal(path), time)
    pairing.refresh()
    return pairing


def knocked(pairing: Pairing, peer: str = "user:7", name: str = "Ann") -> Code:
    code = pairing.knock(peer, name)
    assert code is not None
    return code


def test_an_approved_code_lets_its_peer_in_for_good(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    code = knocked(pairing)
    assert not pairing.approved("user:7")
    assert pairing.approve(code.code) == "user:7"
    again = opened(path, time)
    assert again.approved("user:7")
    assert [(guest.peer, guest.name) for guest in again.all()] == [("user:7", "Ann")]
    assert not again.waiting()


def test_a_code_is_taken_as_people_type_it(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    code = knocked(pairing).code
    assert pairing.approve(f" {code[:3].lower()}-{code[3:]}\n") == "user:7"


def test_a_code_that_a_crash_kept_from_being_told_is_told_again(path: Path, time: Time) -> None:
    code = knocked(opened(path, time))
    again = opened(path, time)
    assert again.knock("user:7", "Ann") == code
    assert again.knock("user:7", "Ann") is None


def test_a_code_waits_over_a_restart(path: Path, time: Time) -> None:
    code = knocked(opened(path, time))
    again = opened(path, time)
    assert again.waiting() == [code]
    assert again.approve(code.code) == "user:7"


def test_a_code_is_good_for_an_hour_and_once(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    late = knocked(pairing)
    time.now += LIFETIME
    assert pairing.approve(late.code) is None
    code = knocked(pairing)
    assert pairing.approve(code.code) == "user:7"
    assert pairing.approve(code.code) is None


def test_three_codes_are_open_in_a_chat_and_not_two_within_a_minute(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    codes = []
    for _ in range(OPEN_PER_CHAT):
        codes.append(knocked(pairing))
        assert pairing.knock("user:7", "Ann") is None
        time.now += 60
    assert pairing.knock("user:7", "Ann") is None
    assert knocked(pairing, "user:8", "Bea")
    assert pairing.approve(codes[0].code) == "user:7"
    assert [code.peer for code in pairing.waiting()] == ["user:8"]
    time.now += LIFETIME
    assert knocked(pairing)


def test_guesses_are_limited_and_the_limit_passes(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    code = knocked(pairing)
    for _ in range(GUESSES):
        assert pairing.approve("WRONG1") is None
    with pytest.raises(TooManyGuesses, match="10 min"):
        pairing.approve(code.code)
    time.now += 600
    assert pairing.approve(code.code) == "user:7"


def test_a_revoked_peer_is_a_stranger_again(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    pairing.approve(knocked(pairing).code)
    assert pairing.revoke("user:7")
    assert not pairing.revoke("user:7")
    assert not opened(path, time).approved("user:7")


@pytest.mark.parametrize("torn", [b'{"approve":"user:9","na', b"\x00\xff\n", b"[1]\n7\n"])
def test_what_a_crash_tore_hides_nothing(path: Path, time: Time, torn: bytes) -> None:
    pairing = opened(path, time)
    pairing.approve(knocked(pairing).code)
    with path.open("ab") as file:
        file.write(torn)
    again = opened(path, time)
    assert [guest.peer for guest in again.all()] == ["user:7"]
    again.approve(knocked(again, "user:8").code)
    assert [guest.peer for guest in opened(path, time).all()] == ["user:7", "user:8"]


def test_every_cut_of_the_file_is_read(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    pairing.approve(knocked(pairing, name="Änn\ud800").code)
    whole = path.read_bytes()
    approved = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        approved.append(opened(path, time).approved("user:7"))
    assert approved == sorted(approved)
    assert approved[-2:] == [True, True]  # only the last newline may be missing


def test_what_the_disk_refuses_did_not_happen(
    path: Path, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairing = opened(path, time)
    code = knocked(pairing)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="No space"):
            pairing.approve(code.code)
    assert not pairing.approved("user:7")
    assert path.read_bytes() == before
    assert pairing.approve(code.code) == "user:7"


def test_a_long_file_is_written_anew_when_it_is_read(path: Path, time: Time) -> None:
    pairing = opened(path, time)
    pairing.approve(knocked(pairing).code)
    with path.open("a") as file:
        for number in range(2000):
            expired = {"knock": "user:9", "code": f"X{number}", "name": "", "expires": time.now - 1}
            file.write(json.dumps(expired) + "\n")
    assert opened(path, time).approved("user:7")
    assert len(path.read_text().splitlines()) == 1
    assert opened(path, time).approved("user:7")


def test_the_file_is_the_owners_alone(path: Path, time: Time) -> None:
    knocked(opened(path, time))
    assert path.stat().st_mode & 0o777 == 0o600
