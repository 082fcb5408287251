"""Which chats a bot may read and write, and how a member of one looks to it."""

from typing import TYPE_CHECKING

from tests.fakes.telegram_chats import Chat
from tests.fakes.telegram_checks import Json, Refusal, bad_request
from tests.fakes.telegram_parameters import Parameters

if TYPE_CHECKING:
    from tests.fakes.telegram_world import World

_RIGHTS = {"can_be_edited": False, "is_anonymous": False} | {
    f"can_{what}": True
    for what in (
        *("manage_chat", "manage_video_chats", "promote_members", "restrict_members", "change_info"),
        *("invite_users", "delete_messages", "post_stories", "edit_stories", "delete_stories"),
    )
}


def member(user: Json, status: str) -> Json:
    """A Bot API ChatMember."""
    body: Json = {"user": user, "status": status}
    match status:
        case "administrator":
            return body | _RIGHTS
        case "creator":
            return body | {"is_anonymous": False}
        case "kicked":
            return body | {"until_date": 0}
        case _:
            return body


def readable(server: "World", asked: Parameters) -> Chat:
    """The chat, if the bot may look at it."""
    chat_id = asked.get("chat_id", "")
    if chat_id == "":
        raise bad_request("chat_id is empty")
    chat = server.chats.get(chat_id) if isinstance(chat_id, int) else server.chat_named(str(chat_id))
    if chat is None or not chat.known:
        raise bad_request("chat not found")
    name = "group" if chat.type == "group" else chat.type
    if chat.bot_status == "kicked":
        raise Refusal(403, f"Forbidden: bot was kicked from the {name} chat")
    if chat.bot_status == "left":
        raise Refusal(403, f"Forbidden: bot is not a member of the {name} chat")
    return chat


def writable(server: "World", asked: Parameters) -> Chat:
    """The chat, if the bot may write there."""
    chat = readable(server, asked)
    if chat.migrated_to is not None:
        moved = {"migrate_to_chat_id": chat.migrated_to}
        raise Refusal(400, "Bad Request: group chat was upgraded to a supergroup chat", moved)
    if chat.blocked:
        raise Refusal(403, "Forbidden: bot was blocked by the user")
    if chat.type == "channel" and chat.bot_status != "administrator":
        raise bad_request("need administrator rights in the channel chat")
    return chat
