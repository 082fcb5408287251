"""The methods of the Bot API that the fake knows, as a table from name to function.

Each takes the server and the request's parameters, returns the `result` and raises `Refusal`.
"""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tests.fakes import telegram_sending
from tests.fakes.telegram_access import member, readable, writable
from tests.fakes.telegram_checks import Json, bad_request, utf16_length
from tests.fakes.telegram_parameters import Parameters

if TYPE_CHECKING:
    from tests.fakes.telegram_world import World

MAX_CALLBACK_TEXT = 200
MAX_DOWNLOAD = 20 * 1024 * 1024


async def get_me(server: "World", _: Parameters) -> Json:
    abilities = {
        "can_join_groups": True,
        "can_read_all_group_messages": True,
        "supports_inline_queries": False,
    }
    return server.bot_user | abilities


async def get_updates(server: "World", asked: Parameters) -> list[Json]:
    server.updates.allow(asked.decoded("allowed_updates", list, "allowed_updates"))
    timeout = float(asked.get("timeout") or 0)
    return await server.updates.get(asked.integer("offset"), asked.integer("limit", 100), timeout)


async def set_webhook(server: "World", asked: Parameters) -> bool:
    url, secret = asked.string("url"), asked.string("secret_token")
    if not url:
        return await delete_webhook(server, asked)
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
        raise bad_request("invalid webhook URL specified")
    if len(secret) > 256:
        raise bad_request("secret token is too long")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", secret):
        raise bad_request("secret token contains unallowed characters")
    server.updates.allow(asked.decoded("allowed_updates", list, "allowed_updates"))
    await server.set_webhook(
        url, secret, drop=asked.flag("drop_pending_updates"), connections=asked.integer("max_connections", 40)
    )
    return True


async def delete_webhook(server: "World", asked: Parameters) -> bool:
    await server.set_webhook(None, "", drop=asked.flag("drop_pending_updates"))
    return True


async def get_webhook_info(server: "World", _: Parameters) -> Json:
    server.updates.expire()
    info: Json = {
        "url": "",
        "has_custom_certificate": False,
        "pending_update_count": len(server.updates.pending),
    }
    if hook := server.updates.webhook:
        info |= {"url": hook.url, "max_connections": hook.max_connections}
        if hook.last_error:
            info |= {"last_error_date": int(hook.last_error[0]), "last_error_message": hook.last_error[1]}
    if server.updates.allowed is not None:
        info["allowed_updates"] = sorted(server.updates.allowed)
    return info


async def log_out(server: "World", _: Parameters) -> bool:
    server.logged_out = True
    return True


async def close(server: "World", _: Parameters) -> bool:
    return True


async def set_my_commands(server: "World", asked: Parameters) -> bool:
    commands = asked.decoded("commands", list, "BotCommand") or []
    for command in commands:
        if not re.fullmatch(r"[a-z0-9_]{1,32}", str(command.get("command", "")).removeprefix("/")):
            raise bad_request("BOT_COMMAND_INVALID")
        if not 1 <= len(command.get("description", "")) <= 256:
            raise bad_request("BOT_COMMAND_DESCRIPTION_INVALID")
    if len(commands) > 100:
        raise bad_request("BOT_COMMANDS_TOO_MUCH")
    server.commands[_scope(asked)] = commands
    return True


async def get_my_commands(server: "World", asked: Parameters) -> list[Json]:
    return server.commands.get(_scope(asked), [])


async def answer_callback_query(server: "World", asked: Parameters) -> bool:
    query = asked.string("callback_query_id")
    if query not in server.open_queries:
        raise bad_request("query is too old and response timeout expired or query ID is invalid")
    text = asked.string("text")
    if utf16_length(text) > MAX_CALLBACK_TEXT:
        raise bad_request("MESSAGE_TOO_LONG")
    server.open_queries.discard(query)
    server.popups[query] = text
    return True


async def get_file(server: "World", asked: Parameters) -> Json:
    stored = server.files.find(asked.string("file_id"))
    if stored is None:
        raise bad_request("wrong file_id or the file is temporarily unavailable")
    if stored.size > MAX_DOWNLOAD:
        raise bad_request("file is too big")
    stored.offered = server.clock()
    return stored.api() | {"file_path": stored.path}


async def get_chat(server: "World", asked: Parameters) -> Json:
    chat = readable(server, asked)
    gifts = dict.fromkeys(
        (
            "unlimited_gifts",
            "limited_gifts",
            "unique_gifts",
            "premium_subscription",
            "gifts_from_channels",
        ),
        False,
    )
    return chat.api() | {"accent_color_id": 0, "max_reaction_count": 11, "accepted_gift_types": gifts}


async def get_chat_member(server: "World", asked: Parameters) -> Json:
    chat, user_id = readable(server, asked), asked.integer("user_id")
    if user_id == server.bot_user["id"]:
        return member(server.bot_user, chat.bot_status)
    if user_id not in server.people:
        raise bad_request("user not found")
    status = "member" if user_id == chat.id else chat.members.get(user_id, "left")
    return member(server.people[user_id].api, status)


async def leave_chat(server: "World", asked: Parameters) -> bool:
    chat = writable(server, asked)
    if chat.type == "private":
        raise bad_request("chat member status can't be changed in private chats")
    server.change_bot_status(chat, "left", by=server.bot_user)
    return True


def _scope(asked: Parameters) -> str:
    scope = asked.nested("scope") or {"type": "default"}
    return f"{sorted(scope.items())} {asked.string('language_code')}"


Method = Callable[["World", Parameters], Awaitable[Any]]
METHODS: dict[str, Method] = {
    "getme": get_me,
    "getupdates": get_updates,
    "setwebhook": set_webhook,
    "deletewebhook": delete_webhook,
    "getwebhookinfo": get_webhook_info,
    "logout": log_out,
    "close": close,
    "setmycommands": set_my_commands,
    "getmycommands": get_my_commands,
    "answercallbackquery": answer_callback_query,
    "getfile": get_file,
    "getchat": get_chat,
    "getchatmember": get_chat_member,
    "leavechat": leave_chat,
    "sendmessage": telegram_sending.send_message,
    "editmessagetext": telegram_sending.edit_message_text,
    "editmessagereplymarkup": telegram_sending.edit_message_reply_markup,
    "deletemessage": telegram_sending.delete_message,
    "sendchataction": telegram_sending.send_chat_action,
    "sendmessagedraft": telegram_sending.send_message_draft,
}
