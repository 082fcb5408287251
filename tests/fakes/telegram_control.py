"""What another process may ask of the server: JSON in, JSON out, under /control/.

POST says {user, text, group?, thread?, reply_to?} · group {id, title?, forum?} · update {…any shape…}
     fault {method, fault, times?, chat?, …its fields…} · heal {} · release {} · flood {chat, seconds}
     blocks {user} · unblocks {user} · restart_update_ids {first?}
GET  ledger -> {chats: {id: …}, calls: […], pending, next_update_id}
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes import telegram_faults
from tests.fakes.telegram_checks import Json
from tests.fakes.telegram_people import Place

if TYPE_CHECKING:
    from tests.fakes.telegram_server import TelegramServer

_FAULTS: dict[str, Callable[..., telegram_faults.Fault]] = {
    fault.__name__: fault
    for fault in (
        telegram_faults.AnswerLost,
        telegram_faults.Reset,
        telegram_faults.Hang,
        telegram_faults.Slow,
        telegram_faults.Html,
        telegram_faults.Refuse,
        telegram_faults.TooMany,
        telegram_faults.Truncated,
        telegram_faults.Trickle,
        telegram_faults.unauthorized,
        telegram_faults.conflict,
    )
}
_FAULTS["Garbage"] = lambda body="not json": telegram_faults.Garbage(body.encode())


async def control(server: "TelegramServer", request: web.Request) -> web.Response:
    verb = request.path.removeprefix("/control/")
    if request.method == "GET" and verb == "ledger":
        return web.json_response(_ledger(server))
    if request.method != "POST" or verb not in _VERBS:
        return web.json_response({"error": f"no such verb: {verb}"}, status=404)
    asked = await request.json() if request.can_read_body else {}
    try:
        return web.json_response(_VERBS[verb](server, asked))
    except (KeyError, TypeError, ValueError) as problem:
        return web.json_response({"error": f"{verb}: {problem!r}"}, status=400)


def _says(server: "TelegramServer", asked: Json) -> Json:
    user, into = server.user(asked["user"]), None
    if "group" in asked:
        into = Place(server, server.chats[asked["group"]])
    message = user.says(asked["text"], into=into, thread=asked.get("thread"), reply_to=asked.get("reply_to"))
    return {"message_id": message.id}


def _group(server: "TelegramServer", asked: Json) -> Json:
    return {"id": server.group(asked["id"], asked.get("title", "Group"), forum=asked.get("forum", False)).id}


def _update(server: "TelegramServer", asked: Json) -> Json:
    return {"update_id": server.push_raw(asked).id}


def _fault(server: "TelegramServer", asked: Json) -> Json:
    method, kind, times, chat = (
        asked.pop("method"),
        asked.pop("fault"),
        asked.pop("times", 1),
        asked.pop("chat", None),
    )
    when = None if chat is None else lambda params: params.get("chat_id") == chat
    server.fail(method, _FAULTS[kind](**asked), times=times, when=when)
    return {}


def _heal(server: "TelegramServer", _: Json) -> Json:
    server.heal()
    return {}


def _release(server: "TelegramServer", _: Json) -> Json:
    server.release.set()
    return {}


def _flood(server: "TelegramServer", asked: Json) -> Json:
    server.flood(asked.get("chat"), asked["seconds"])
    return {}


def _blocks(server: "TelegramServer", asked: Json) -> Json:
    server.user(asked["user"]).blocks_bot()
    return {}


def _unblocks(server: "TelegramServer", asked: Json) -> Json:
    server.user(asked["user"]).unblocks_bot()
    return {}


def _restart_update_ids(server: "TelegramServer", asked: Json) -> Json:
    server.restart_update_ids(asked.get("first"))
    return {"next_update_id": server.updates.next_id}


_VERBS: dict[str, Callable[["TelegramServer", Json], Json]] = {
    "says": _says,
    "group": _group,
    "update": _update,
    "fault": _fault,
    "heal": _heal,
    "release": _release,
    "flood": _flood,
    "blocks": _blocks,
    "unblocks": _unblocks,
    "restart_update_ids": _restart_update_ids,
}


def _ledger(server: "TelegramServer") -> dict[str, Any]:
    return {
        "chats": {str(chat.id): chat.ledger() for chat in server.chats.values()},
        "calls": [
            {
                "method": call.method,
                "params": {
                    name: value for name, value in call.params.items() if not isinstance(value, bytes)
                },
                "at": call.at,
                "committed": call.committed,
                "answered": call.answered,
                "status": call.status,
                "error": call.error,
            }
            for call in server.calls
        ],
        "pending": len(server.updates.pending),
        "next_update_id": server.updates.next_id,
    }
