"""What people do arrives as Telegram would report it, and their files can be fetched."""

import pytest
from telegram import Bot
from telegram.error import BadRequest, InvalidToken

from tests.fakes.conftest import Clock
from tests.fakes.telegram_checks import utf16_length
from tests.fakes.telegram_server import TelegramServer


async def test_media_arrive_and_can_be_fetched(server: TelegramServer, bot: Bot, clock: Clock) -> None:
    ann = server.user(7)
    ann.sends_photo(b"picture", "look https://a.example")
    ann.sends_document(b"words", "notes.txt", "read @lunar_bot")
    ann.sends_voice(b"sound")
    ann.sends_video_note(b"round")
    ann.sends_sticker(b"sticker")
    ann.sends_location(52.5, 13.4)
    ann.sends_contact("+49301", "Bea")
    ann.forwards("heard elsewhere")
    messages = [update.message for update in await bot.get_updates()]
    photo, document, voice, note, sticker, place, contact, forward = [m for m in messages if m is not None]
    assert photo.caption_entities[0].type == "url"
    assert photo.text is None
    for media, data in (
        (photo.photo[-1], b"picture"),
        (document.document, b"words"),
        (voice.voice, b"sound"),
        (note.video_note, b"round"),
        (sticker.sticker, b"sticker"),
    ):
        assert media is not None
        assert bytes(await (await media.get_file()).download_as_bytearray()) == data
    assert place.location is not None
    assert contact.contact is not None
    assert forward.forward_origin is not None
    assert document.document is not None
    file = await document.document.get_file()
    clock.now += 2 * 3600
    with pytest.raises(InvalidToken, match="Not Found"):  # what the library makes of a 404
        await file.download_as_bytearray()
    ann.sends_document(b"", size=21 * 1024 * 1024)
    big = (await bot.get_updates())[-1].message
    assert big is not None
    assert big.document is not None
    with pytest.raises(BadRequest, match="File is too big"):
        await big.document.get_file()
    with pytest.raises(BadRequest, match="Wrong file_id"):
        await bot.get_file("never")


async def test_an_album_is_one_update_a_photo(server: TelegramServer, bot: Bot) -> None:
    server.user(7).sends_album([b"1", b"2", b"3"], "all of them")
    messages = [update.message for update in await bot.get_updates()]
    assert [message.caption for message in messages if message] == ["all of them", None, None]
    assert len({message.media_group_id for message in messages if message}) == 1


async def test_a_long_paste_is_split_as_clients_do(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    text = "x" + "\U0001f600" * 4096
    with pytest.raises(ValueError, match="pastes"):
        ann.says(text)
    ann.pastes(text)
    texts = [
        update.message.text for update in await bot.get_updates() if update.message and update.message.text
    ]
    assert [utf16_length(part) for part in texts] == [4095, 4096, 2]
    assert "".join(texts) == text


async def test_edits_channels_and_commands_with_a_name(server: TelegramServer, bot: Bot) -> None:
    ann, channel = server.user(7), server.channel(-1_002_000_000_001)
    ann.edits(ann.says("/status@lunar_bot please"), "changed")
    channel.edits_post(channel.posts("news"), "newer news")
    command, edit, post, newer = await bot.get_updates()
    assert command.message is not None
    assert command.message.parse_entities() == {command.message.entities[0]: "/status@lunar_bot"}
    assert edit.edited_message is not None
    assert edit.edited_message.text == "changed"
    assert post.channel_post is not None
    assert post.channel_post.from_user is None
    assert newer.edited_channel_post is not None
