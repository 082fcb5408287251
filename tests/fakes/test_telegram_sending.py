"""What may be sent, edited and deleted, and what of it a chat's people see."""

from datetime import timedelta

import pytest
from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity, ReplyParameters
from telegram.error import BadRequest, ChatMigrated, Forbidden, RetryAfter

from tests.fakes.conftest import Clock
from tests.fakes.telegram_server import Rates, TelegramServer

GROUP, FORUM = -100, -1_001_000_000_001


async def test_a_message_is_stored_as_telegram_stores_it(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    question = ann.says("What about the second part of it?")
    sent = await bot.send_message(
        7,
        "  \U0001f600 bold text  \n",
        entities=[MessageEntity("bold", 5, 4)],
        reply_parameters=ReplyParameters(question.id, quote="second part"),
        disable_notification=True,
    )
    assert sent.text == "\U0001f600 bold text"
    assert [(entity.offset, entity.length) for entity in sent.entities] == [(3, 4)]
    assert sent.quote is not None
    assert (sent.quote.text, sent.quote.position) == ("second part", 15)
    [stored] = ann.chat.bot_messages()
    assert (stored.text, stored.reply_to_id, stored.silent) == ("\U0001f600 bold text", question.id, True)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("x" * 4096, None),
        ("x" * 4096 + " \n", None),
        ("x" * 4097, "Message is too long"),
        ("\U0001f600" * 2048, None),
        ("\U0001f600" * 2048 + "x", "Message is too long"),
        ("", "Message text is empty"),
        (" \n ", "Text must be non-empty"),
    ],
)
async def test_a_text_is_counted_in_utf16(
    server: TelegramServer, bot: Bot, text: str, refused: str | None
) -> None:
    server.user(7)
    if refused is None:
        await bot.send_message(7, text)
    else:
        with pytest.raises(BadRequest, match=refused):
            await bot.send_message(7, text)
    assert len(server.chats[7].texts()) == (refused is None)


@pytest.mark.parametrize(
    ("offset", "length", "refused"),
    [
        (0, 1, "ends in a middle of a utf-16 symbol"),
        (1, 1, "begins in a middle of a utf-16 symbol"),
        (0, 4, "ends after the end of the text"),
        (9, 1, "begins after the end of the text"),
        (-1, 1, "incorrect offset"),
    ],
)
async def test_entities_must_lie_in_the_text(
    server: TelegramServer, bot: Bot, offset: int, length: int, refused: str
) -> None:
    server.user(7)
    with pytest.raises(BadRequest, match=refused):
        await bot.send_message(7, "\U0001f600x", entities=[MessageEntity("bold", offset, length)])


async def test_entities_are_mended_and_limited(server: TelegramServer, bot: Bot) -> None:
    server.user(7)
    crossing = [MessageEntity("bold", 0, 4), MessageEntity("italic", 2, 4), MessageEntity("code", 7, 3)]
    inside_code = MessageEntity("bold", 8, 1)
    sent = await bot.send_message(7, "abcdef code", entities=[*crossing, inside_code])
    assert [(e.type, e.offset, e.length) for e in sent.entities] == [
        ("bold", 0, 4),
        ("italic", 2, 2),
        ("italic", 4, 2),
        ("code", 7, 3),
    ]
    many = [MessageEntity("bold", 2 * number, 1) for number in range(120)]
    assert len((await bot.send_message(7, "x " * 119 + "x", entities=many)).entities) == 100
    with pytest.raises(BadRequest, match="unsupported type"):
        await bot.send_message(7, "x", entities=[MessageEntity("shiny", 0, 1)])


@pytest.mark.parametrize(
    ("mode", "text", "shown"),
    [
        ("HTML", "<b>bold &amp; <i>both</i></b> <a href='https://a.example'>link</a>", "bold & both link"),
        ("HTML", '<pre><code class="language-py">x &lt; 1</code></pre>', "x < 1"),
        ("MarkdownV2", r"*bold _both_* `a\`b` 1\.", "bold both a`b 1."),
        ("MarkdownV2", "```py\nx = 1\n```", "x = 1"),
        ("HTML", "<b>open", None),
        ("HTML", "<b>x</i>", None),
        ("HTML", "1 < 2", None),
        ("HTML", "<script>x</script>", None),
        ("MarkdownV2", "*open", None),
        ("MarkdownV2", "not escaped.", None),
    ],
)
async def test_markup_is_parsed_or_refused(
    server: TelegramServer, bot: Bot, mode: str, text: str, shown: str | None
) -> None:
    server.user(7)
    if shown is not None:
        sent = await bot.send_message(7, text, parse_mode=mode)
        assert sent.text == shown
        assert sent.entities
    else:
        with pytest.raises(BadRequest, match="Can't parse entities"):
            await bot.send_message(7, text, parse_mode=mode)


async def test_who_cannot_be_written_to(server: TelegramServer, bot: Bot) -> None:
    ann, bea, group = server.user(7), server.user(8, known=False), server.group(GROUP)
    with pytest.raises(BadRequest, match="Chat not found"):
        await bot.send_message(99, "x")
    with pytest.raises(BadRequest, match="Chat not found"):
        await bot.send_message(bea.id, "x")
    bea.says("hello")
    await bot.send_message(bea.id, "now it works")
    ann.blocks_bot()
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(7, "x")
    ann.unblocks_bot()
    await bot.send_message(7, "back")
    group.kicks_bot(by=ann)
    with pytest.raises(Forbidden, match="bot was kicked from the group chat"):
        await bot.send_message(GROUP, "x")
    group.adds_bot(by=ann)
    assert await bot.leave_chat(GROUP)
    with pytest.raises(Forbidden, match="bot is not a member of the group chat"):
        await bot.send_message(GROUP, "x")
    updates = await bot.get_updates()
    changes = [u.my_chat_member for u in updates if u.my_chat_member]
    assert [change.new_chat_member.status for change in changes] == [
        "kicked",
        "member",
        "kicked",
        "member",
        "left",
    ]


async def test_replies(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    question = ann.says("a question")
    with pytest.raises(BadRequest, match="Quote_text_invalid"):
        await bot.send_message(7, "x", reply_parameters=ReplyParameters(question.id, quote="never said"))
    ann.deletes(question)
    with pytest.raises(BadRequest, match="Message to be replied not found"):
        await bot.send_message(7, "x", reply_parameters=ReplyParameters(question.id))
    anyway = ReplyParameters(question.id, allow_sending_without_reply=True)
    assert (await bot.send_message(7, "x", reply_parameters=anyway)).reply_to_message is None
    mine = await bot.send_message(7, "the bot's")
    ann.says("an answer", reply_to=mine.message_id, quote="bot's")
    update = (await bot.get_updates())[-1]
    assert update.message is not None
    assert update.message.reply_to_message is not None
    assert update.message.reply_to_message.message_id == mine.message_id
    assert update.message.quote is not None
    assert update.message.quote.position == 4


async def test_edits(server: TelegramServer, bot: Bot, clock: Clock) -> None:
    ann = server.user(7)
    keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Stop", callback_data="stop")]])
    sent = await bot.send_message(7, "first", reply_markup=keyboard)
    clock.now += 5
    with pytest.raises(BadRequest, match="Message is not modified"):
        await bot.edit_message_text("first", 7, sent.message_id, reply_markup=keyboard)
    await bot.edit_message_text("first", 7, sent.message_id)  # takes the keyboard away
    with pytest.raises(BadRequest, match="Message is not modified"):
        await bot.edit_message_text("first \n", 7, sent.message_id)
    await bot.edit_message_text("second", 7, sent.message_id)
    with pytest.raises(BadRequest, match="Message_too_long"):
        await bot.edit_message_text("x" * 4097, 7, sent.message_id)
    [message] = ann.chat.bot_messages()
    assert [(edit.until, edit.text) for edit in message.edits] == [(clock.now, "first"), (clock.now, "first")]
    assert ann.chat.seen_texts() == ["first", "first", "second"]
    with pytest.raises(BadRequest, match="Message can't be edited"):
        await bot.edit_message_text("x", 7, ann.says("mine").id)
    ann.deletes(sent.message_id)
    with pytest.raises(BadRequest, match="Message to edit not found"):
        await bot.edit_message_text("third", 7, sent.message_id)
    assert ann.chat.texts() == []


async def test_deletions(server: TelegramServer, bot: Bot, clock: Clock) -> None:
    ann, group = server.user(7), server.group(GROUP)
    sent = await bot.send_message(7, "oops")
    assert await bot.delete_message(7, sent.message_id)
    with pytest.raises(BadRequest, match="Message to delete not found"):
        await bot.delete_message(7, sent.message_id)
    with pytest.raises(BadRequest, match="Message can't be deleted"):
        await bot.delete_message(GROUP, ann.says("Ann's", into=group).id)
    old = await bot.send_message(7, "old")
    clock.now += 49 * 3600
    with pytest.raises(BadRequest, match="Message can't be deleted"):
        await bot.delete_message(7, old.message_id)


async def test_topics(server: TelegramServer, bot: Bot) -> None:
    ann, forum = server.user(7), server.group(FORUM, forum=True)
    thread = forum.opens_topic("Plans")
    ann.says("in the topic", into=forum, thread=thread)
    ann.says("in General", into=forum)
    _, topical, general = [update.message for update in await bot.get_updates()]
    assert topical is not None
    assert general is not None
    assert (topical.message_thread_id, topical.is_topic_message) == (thread, True)
    assert topical.reply_to_message is not None
    assert topical.reply_to_message.forum_topic_created is not None
    assert (general.message_thread_id, general.is_topic_message) == (None, None)
    assert (await bot.send_message(FORUM, "x", message_thread_id=thread)).message_thread_id == thread
    for unknown in (1, 999):
        with pytest.raises(BadRequest, match="Message thread not found"):
            await bot.send_message(FORUM, "x", message_thread_id=unknown)
    forum.closes_topic(thread)
    with pytest.raises(BadRequest, match="Topic_closed"):
        await bot.send_message(FORUM, "x", message_thread_id=thread)
    forum.deletes_topic(thread)
    with pytest.raises(BadRequest, match="Message thread not found"):
        await bot.send_message(FORUM, "x", message_thread_id=thread)


async def test_a_reply_in_a_supergroup_without_topics_has_a_thread_that_is_no_topic(
    server: TelegramServer, bot: Bot
) -> None:
    ann, group = server.user(7), server.group(FORUM)
    root = ann.says("root", into=group)
    ann.says("reply", into=group, reply_to=root)
    message = (await bot.get_updates())[-1].message
    assert message is not None
    assert (message.message_thread_id, message.is_topic_message) == (root.id, None)


async def test_a_group_becomes_a_supergroup(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    group = server.group(GROUP, "Team", members=(ann,))
    ann.says("before", into=group)
    new = group.migrates()
    with pytest.raises(ChatMigrated) as moved:
        await bot.send_message(GROUP, "x")
    assert moved.value.new_chat_id == new.id
    after = ann.says("after", into=new)
    assert after.id == 2  # ids began anew
    there, here = [update.message for update in (await bot.get_updates())[1:3]]
    assert there is not None
    assert here is not None
    assert (there.chat.id, there.migrate_to_chat_id) == (GROUP, new.id)
    assert (here.chat.id, here.migrate_from_chat_id) == (new.id, GROUP)
    assert (await bot.send_message(new.id, "x")).message_id == 3


async def test_drafts_and_actions(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    server.group(GROUP)
    assert await bot.send_message_draft(7, 1, "")
    assert await bot.send_message_draft(7, 1, "Hel")
    assert await bot.send_message_draft(7, 1, "Hello")
    assert [draft.text for draft in ann.chat.drafts] == ["", "Hel", "Hello"]
    assert ann.chat.seen_texts() == []
    with pytest.raises(BadRequest, match="Textdraft_peer_invalid"):
        await bot.send_message_draft(GROUP, 1, "Hello")
    with pytest.raises(BadRequest):
        await bot.send_message_draft(7, 0, "Hello")
    assert await bot.send_chat_action(7, "typing")
    assert [action.action for action in ann.chat.actions] == ["typing"]
    with pytest.raises(BadRequest, match="Wrong parameter action"):
        await bot.send_chat_action(7, "dancing")


async def test_buttons(server: TelegramServer, bot: Bot) -> None:
    ann = server.user(7)
    keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Allow", callback_data="allow:1")]])
    sent = await bot.send_message(7, "May I?", reply_markup=keyboard)
    message = server.message(ann.chat, sent.message_id)
    with pytest.raises(ValueError, match="no button"):
        ann.presses(message, "deny")
    ann.presses(message, "allow:1")
    [update] = await bot.get_updates()
    assert update.callback_query is not None
    assert update.callback_query.data == "allow:1"
    with pytest.raises(BadRequest, match="Message_too_long"):
        await bot.answer_callback_query(update.callback_query.id, text="x" * 201)
    assert await bot.answer_callback_query(update.callback_query.id, text="Done")
    assert server.popups == {update.callback_query.id: "Done"}
    with pytest.raises(BadRequest, match="Query is too old"):
        await bot.answer_callback_query(update.callback_query.id)
    await bot.edit_message_reply_markup(7, sent.message_id)
    assert (message.keyboard, message.text) == (None, "May I?")
    with pytest.raises(BadRequest, match="not modified"):
        await bot.edit_message_reply_markup(7, sent.message_id)
    with pytest.raises(BadRequest, match="to edit not found"):
        await bot.edit_message_reply_markup(7, 999)
    long = InlineKeyboardMarkup([[InlineKeyboardButton("Long", callback_data="x" * 65)]])
    with pytest.raises(BadRequest, match="Button_data_invalid"):
        await bot.send_message(7, "x", reply_markup=long)


async def test_flood_waits_and_rates(server: TelegramServer, bot: Bot, clock: Clock) -> None:
    ann, bea = server.user(7), server.user(8)
    server.group(GROUP)
    server.flood(7, 12.5)
    with pytest.raises(RetryAfter) as wait:
        await bot.send_message(7, "x")
    assert wait.value.retry_after == timedelta(seconds=13)
    await bot.send_message(8, "another chat is free")
    clock.now += 13
    await bot.send_message(7, "free again")
    clock.now += 60
    server.limits.rates = Rates()
    await bot.send_message(7, "one in this second")
    with pytest.raises(RetryAfter):
        await bot.send_message(7, "two in this second")
    for number in range(20):
        await bot.send_message(GROUP, f"message {number}")
    with pytest.raises(RetryAfter) as wait:
        await bot.send_message(GROUP, "one too many for this minute")
    assert wait.value.retry_after == timedelta(seconds=60)
    assert ann.chat.texts() == ["free again", "one in this second"]
    assert bea.chat.texts() == ["another chat is free"]
