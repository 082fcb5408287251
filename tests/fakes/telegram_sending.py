"""The methods that put something before people's eyes: send, edit, delete, draft, chat action.

The order of the checks is the real server's: markup, chat, reply, thread, text, and the flood limit last.
"""

import re
from typing import TYPE_CHECKING

from tests.fakes.telegram_access import readable, writable
from tests.fakes.telegram_chats import Action, Chat, Draft, Message
from tests.fakes.telegram_checks import Json, bad_request, checked, utf16_length
from tests.fakes.telegram_parameters import Parameters

if TYPE_CHECKING:
    from tests.fakes.telegram_world import World

NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same"
    " as a current content and reply markup of the message"
)
DELETABLE = 48 * 3600  # seconds
_ACTION = re.compile(
    "typing|upload_photo|(record|upload)_(video|voice|video_note)|upload_document|choose_sticker|find_location"
)


async def send_message(server: "World", asked: Parameters) -> Json:
    raw = asked.formatted()
    if not raw.text:
        raise bad_request("message text is empty")
    keyboard = _keyboard(asked)
    chat = writable(server, asked)
    reply_to, quote = _reply(server, chat, asked)
    thread = _thread(chat, asked, reply_to)
    text = checked(raw.text, raw.entities)
    server.limits.check(chat.id)
    message = chat.add(
        server.bot_user,
        text.text,
        entities=text.entities,
        by_bot=True,
        reply_to=reply_to,
        quote=quote,
        thread=thread,
        keyboard=keyboard,
        silent=asked.flag("disable_notification"),
        extra=_link_preview(asked),
    )
    return message.api()


async def edit_message_text(server: "World", asked: Parameters) -> Json:
    raw = asked.formatted()
    if not raw.text:
        raise bad_request("message text is empty")
    keyboard = _keyboard(asked)
    if not asked.get("message_id"):
        raise bad_request("message identifier is not specified")
    chat = writable(server, asked)
    message = chat.find(asked.integer("message_id"))
    if message is None:
        raise bad_request("message to edit not found")
    if not message.by_bot:
        raise bad_request("message can't be edited")
    text = checked(raw.text, raw.entities, too_long="MESSAGE_TOO_LONG")
    server.limits.check(chat.id)
    if (text.text, text.entities, keyboard) == (message.text, message.entities, message.keyboard):
        raise bad_request(NOT_MODIFIED)
    chat.edit(message, text.text, text.entities, keyboard)
    return message.api()


async def edit_message_reply_markup(server: "World", asked: Parameters) -> Json:
    keyboard = _keyboard(asked)
    chat = writable(server, asked)
    message = chat.find(asked.integer("message_id"))
    if message is None:
        raise bad_request("message to edit not found")
    if not message.by_bot:
        raise bad_request("message can't be edited")
    server.limits.check(chat.id)
    if keyboard == message.keyboard:
        raise bad_request(NOT_MODIFIED)
    message.keyboard, message.edited = keyboard, server.clock()
    return message.api()


async def delete_message(server: "World", asked: Parameters) -> bool:
    chat = writable(server, asked)
    message = chat.find(asked.integer("message_id"))
    if message is None:
        raise bad_request("message to delete not found")
    others_may = chat.type == "private" or chat.bot_status == "administrator"
    if not (message.by_bot or others_may) or server.clock() - message.at > DELETABLE:
        raise bad_request("message can't be deleted")
    chat.delete(message)
    return True


async def send_chat_action(server: "World", asked: Parameters) -> bool:
    if not _ACTION.fullmatch(asked.string("action")):
        raise bad_request("wrong parameter action in request")
    chat = writable(server, asked)
    thread = _thread(chat, asked, None)
    server.limits.check(chat.id, counted=False)
    chat.actions.append(Action(server.clock(), asked.string("action"), thread))
    return True


async def send_message_draft(server: "World", asked: Parameters) -> bool:
    raw = asked.formatted()
    chat = writable(server, asked)
    if chat.type != "private":
        raise bad_request("TEXTDRAFT_PEER_INVALID")
    if not asked.integer("draft_id"):
        raise bad_request("draft identifier must be non-zero")
    thread = _thread(chat, asked, None)
    text = checked(raw.text, raw.entities) if raw.text else raw
    server.limits.check(chat.id, counted=False)
    chat.drafts.append(Draft(server.clock(), asked.integer("draft_id"), text.text, text.entities, thread))
    return True


def _thread(chat: Chat, asked: Parameters, reply_to: Message | None) -> int | None:
    """Where the message goes. The general topic of a forum has no id that a bot may name: 1 is not found."""
    thread = asked.integer("message_thread_id")
    if not thread:
        return chat.thread_of(reply_to)
    topic = chat.topics.get(thread)
    if topic is None or topic.deleted:
        plain = chat.find(thread) if not chat.forum and chat.type == "supergroup" else None
        if plain is None or plain.thread != thread:
            raise bad_request("message thread not found")
    elif topic.closed and chat.bot_status != "administrator":
        raise bad_request("TOPIC_CLOSED")
    return thread


def _reply(server: "World", chat: Chat, asked: Parameters) -> tuple[Message | None, Json | None]:
    wanted = asked.nested("reply_parameters")
    if wanted is None:
        return None, None
    place = chat if wanted.get("chat_id") in (None, chat.id) else readable(server, wanted)
    message = place.find(wanted.integer("message_id"))
    if message is None:
        if wanted.flag("allow_sending_without_reply"):
            return None, None
        raise bad_request("message to be replied not found")
    if not wanted.get("quote"):
        return message, None
    quote = wanted.formatted("quote", "quote_")
    at = message.text.find(quote.text)
    if at < 0 or utf16_length(quote.text) > 1024:
        raise bad_request("QUOTE_TEXT_INVALID")
    return message, {"text": quote.text, "position": utf16_length(message.text[:at]), "is_manual": True}


def _keyboard(asked: Parameters) -> Json | None:
    """The inline keyboard; other keyboards are accepted and forgotten, as they are no part of a message."""
    markup = asked.nested("reply_markup")
    rows = markup.get("inline_keyboard") if markup else None
    for row in rows or []:
        for button in row:
            if not button.get("text"):
                raise bad_request('can\'t parse inline keyboard button: Field "text" must be of type String')
            if "callback_data" in button and not 1 <= len(button["callback_data"].encode()) <= 64:
                raise bad_request("BUTTON_DATA_INVALID")
            if len(button) == 1:
                raise bad_request(
                    "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard"
                )
    return {"inline_keyboard": rows} if rows else None


def _link_preview(asked: Parameters) -> Json:
    options = asked.nested("link_preview_options")
    return {"link_preview_options": dict(options)} if options else {}
