"""One turn's reply on its way into a chat, through the real library."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from channels.base import ToolActivity
from channels.telegram.delivery import Deliveries
from channels.telegram.reply import Streaming
from tests.channels.telegram.stage import (
    ANSWER,
    SHOWN,
    Time,
    Wait,
    begun,
    delivered,
    of_chat,
    private,
    recorded,
    shows,
)
from tests.fakes.garbage import garbage
from tests.fakes.telegram_server import (
    Rates,
    Slow,
    TelegramServer,
)

GROUP = -100
FORUM = -1_001_000_000_001


async def test_a_reply_begins_as_a_part_is_recorded_and_then_made_whole(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    session.ends("t1", ANSWER)
    await wait(lambda: delivered(session))
    [message] = ann.chat.bot_messages()
    assert ann.chat.seen_texts() == ["It is five past …", SHOWN]
    assert message.entities == [{"type": "bold", "offset": 6, "length": 13}]
    assert message.reply_to_id is None
    [sent] = session.recorded("sent")
    assert (sent.turn, sent.part, sent.message_id, sent.chat) == ("t1", 0, message.id, "7")
    assert [event.turn for event in session.recorded("delivered")] == ["t1"]
    assert (deliveries.delivered, deliveries.failed, deliveries.waiting) == (1, 0, 0)


async def test_it_is_shown_while_it_is_written(
    server: TelegramServer, deliveries: Deliveries, wait: Wait, time: Time
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    session.begins("t1", "7_1")
    await wait(lambda: ann.chat.actions)
    assert ann.chat.actions[0].action == "typing"
    words = [f"word{number} " for number in range(40)]
    for number in range(0, 40, 4):
        session.says("t1", "".join(words[number : number + 4]))
        await wait(shows(ann.chat, words[number].strip()))
    session.ends("t1", "".join(words) + "end.")
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == ["".join(words) + "end."]
    assert "end." not in "".join(ann.chat.seen_texts()[:-1])
    assert len(session.recorded("sent")) == 1
    [message] = ann.chat.bot_messages()
    starts = [edit.until for edit in message.edits]
    along = [later - earlier for earlier, later in pairwise(starts[:-1])]
    assert len(along) > 5
    assert min(along) >= 0.99  # one a second


@pytest.mark.parametrize("streaming", ["edit", "draft", "off"])
async def test_a_reply_that_is_over_waits_for_no_collector(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait, streaming: Streaming
) -> None:
    ann, session, deliveries = server.user(7), private(), make(streaming)
    with garbage() as left:
        deliveries.attend(session)
        session.begins("t1", "7_1")
        await wait(lambda: ann.chat.actions)
        session.says("t1", "It is ")
        session.ends("t1", ANSWER)
        await wait(lambda: delivered(session))
        await deliveries.close(1)
    assert not left.of("channels")


async def test_edits_keep_to_the_published_limits(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    group, session = server.group(GROUP), of_chat("-100")
    server.limits.rates = Rates()
    deliveries.attend(session)
    session.begins("t1", "-100_1")
    for number in range(30):
        session.says("t1", f"word{number} ")
        await wait(shows(group.chat, f"word{number}"))
    session.ends("t1", "That is all.", "-100_1")
    await wait(lambda: delivered(session))
    assert group.chat.texts() == ["That is all."]
    assert deliveries.floods == 0


async def test_a_first_bubble_is_never_the_whole_reply(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = server.user(7), private()
    deliveries.attend(session)
    for turn, text in enumerate(("Yes.", "…", "👍", "x …", "好的")):
        session.begins(f"t{turn}", "7_1")
        session.says(f"t{turn}", text)
        await wait(recorded(session, "sent", turn + 1))
        session.ends(f"t{turn}", text)
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == ["Yes.", "…", "👍", "x …", "好的"]
    for message in ann.chat.bot_messages():
        assert message.edits[0].text != message.text


async def test_tools_show_below_what_was_said(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = begun(server, deliveries, "Let me look.")
    session.calls_tool("t1", "Let me look.")
    session.tell(ToolActivity("t1", "c1", "get_weather", "started"))
    await wait(lambda: ann.chat.texts() == ["Let me look.\n\n🔧 get_weather"])
    session.tell(ToolActivity("t1", "c1", "get_weather", "finished"))
    await wait(lambda: ann.chat.texts() == ["Let me look."])
    session.says("t1", "It rains.")
    session.ends("t1", "It rains.")
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == ["Let me look.\n\nIt rains."]


async def test_a_turn_that_begins_again_shows_nothing_of_its_first_attempt(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = begun(server, deliveries, "Old words, and more of them")
    await wait(shows(ann.chat, "and more of them"))
    session.begins("t1", "7_1", attempt=2)
    session.says("t1", "New words")
    await wait(shows(ann.chat, "New words"))
    assert ann.chat.texts() == ["New words"]


async def test_an_edit_that_is_still_under_way_does_not_have_the_last_word(
    server: TelegramServer, deliveries: Deliveries, wait: Wait
) -> None:
    ann, session = begun(server, deliveries, "Let me look.")
    session.calls_tool("t1", "Let me look.")
    await wait(lambda: ann.chat.texts() == ["Let me look."])
    server.fail("editMessageText", Slow(0.1))
    session.tell(ToolActivity("t1", "c1", "get_weather", "started"))
    await wait(lambda: "🔧" in server.calls[-1].params.get("text", ""))
    session.ends("t1", "", finish="stop")  # what was there before that edit
    await wait(lambda: delivered(session))
    assert ann.chat.texts() == ["Let me look."]
    assert "🔧" in ann.chat.seen_texts()[-2]


# -- the other modes ---------------------------------------------------------------------------------


async def test_drafts_in_a_private_chat_and_then_one_message(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait
) -> None:
    ann, session = begun(server, make("draft"), "It is ")
    await wait(lambda: ann.chat.drafts)
    session.says("t1", "**five**")
    await wait(lambda: ann.chat.drafts[-1].text == "It is five")
    assert ann.chat.seen_texts() == []
    session.ends("t1", "It is **five**.")
    await wait(lambda: delivered(session))
    assert ann.chat.seen_texts() == ["It is five."]
    assert len({draft.draft_id for draft in ann.chat.drafts}) == 1
    assert len(session.recorded("sent")) == 1


@pytest.mark.parametrize(("streaming", "peer"), [("off", 7), ("draft", GROUP)])
async def test_without_streaming_there_is_one_message_and_typing(
    server: TelegramServer, make: Callable[..., Deliveries], wait: Wait, streaming: Streaming, peer: int
) -> None:
    session = private() if peer > 0 else of_chat(str(peer))
    chat = server.user(7).chat if peer > 0 else server.group(peer).chat
    make(streaming).attend(session)
    session.begins("t1", f"{peer}_1")
    session.says("t1", "It is")
    await wait(lambda: len(chat.actions) == 3)
    assert chat.seen_texts() == []
    session.ends("t1", ANSWER, f"{peer}_1")
    await wait(lambda: delivered(session))
    assert chat.seen_texts() == [SHOWN]
    assert server.calls_of("sendMessageDraft") == []
