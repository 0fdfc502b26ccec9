"""A Bot API server over real HTTP, as faithful as a bot can tell: core.telegram.org/bots/api.

What is kept true: the token in the path (401 for another), form-encoded calls, `{"ok": ...}`
replies with error codes and descriptions as Telegram writes them, updates confirmed by offset and
given again until then, long polling, 409 for a second poller, 400 for empty or endless texts and
unknown chats, 403 for users who blocked the bot, 429 with `retry_after`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast.rim.loopback_server import LoopbackServer


def _refusal(code: int, description: str, **more: Any) -> JSONResponse:
    body = {"ok": False, "error_code": code, "description": description, **more}
    return JSONResponse(body, status_code=code)


class FakeTelegram:
    """`await start()`; users speak with `say`, `reply` waits for the bot."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._updates: list[dict[str, Any]] = []
        self._next = 1
        self._news = asyncio.Event()
        self._polling = False
        self._chats: set[int] = set()
        self.blocked: set[int] = set()
        self.flood = 0
        """So many messages are refused with 429 first."""
        self.broken = 0
        """So many calls are answered 502 first."""
        self.sent: defaultdict[int, asyncio.Queue[str]] = defaultdict(asyncio.Queue)
        self.everything: list[str] = []
        app = Starlette(routes=[Route("/bot{token}/{method}", self._call, methods=["POST"])])
        self._server = LoopbackServer(app)

    async def start(self) -> str:
        """The base URL."""
        await self._server.start("127.0.0.1", 0)
        return f"http://{self._server.address}"

    async def stop(self) -> None:
        await self._server.stop()

    # --- Users -----------------------------------------------------------------------------------
    def write(self, user: int, text: str, language: str = "en", chat: int | None = None) -> None:
        """A user writes; in a group when `chat` is another id than theirs."""
        where = user if chat is None else chat
        self._chats.add(where)
        kind = "private" if where == user else "group"
        message = {
            "message_id": self._next,
            "date": 1_700_000_000,
            "chat": {"id": where, "type": kind},
            "from": {"id": user, "is_bot": False, "first_name": "N", "language_code": language},
            "text": text,
        }
        self._updates.append({"update_id": self._next, "message": message})
        self._next += 1
        self._news.set()

    async def reply(self, user: int) -> str:
        """The bot's next message in a chat."""
        return await self.sent[user].get()

    async def say(self, user: int, text: str, language: str = "en") -> str:
        """Write, and wait for the answer."""
        self.write(user, text, language)
        return await self.reply(user)

    # --- The API ---------------------------------------------------------------------------------
    async def _call(self, request: Request) -> JSONResponse:
        if request.path_params["token"] != self._token:
            return _refusal(401, "Unauthorized")
        if self.broken:
            self.broken -= 1
            return _refusal(502, "Bad Gateway")
        form = {k: v[0] for k, v in parse_qs((await request.body()).decode()).items()}
        match request.path_params["method"]:
            case "getMe":
                me = {"id": 1, "is_bot": True, "first_name": "Holdfast", "username": "hold_bot"}
                return JSONResponse({"ok": True, "result": me})
            case "getUpdates":
                return await self._get_updates(form)
            case "sendMessage":
                return self._send_message(form)
        return _refusal(404, "Not Found")

    async def _get_updates(self, form: dict[str, str]) -> JSONResponse:
        if self._polling:
            return _refusal(409, "Conflict: terminated by other getUpdates request")
        offset = int(form.get("offset", "0"))
        self._updates = [u for u in self._updates if u["update_id"] >= offset]
        self._polling = True
        try:
            async with asyncio.timeout(float(form.get("timeout", "0"))):
                while not self._updates:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self._polling = False
        return JSONResponse({"ok": True, "result": self._updates[:100]})

    def _send_message(self, form: dict[str, str]) -> JSONResponse:
        chat, text = int(form["chat_id"]), form.get("text", "")
        if self.flood:
            self.flood -= 1
            retry = {"parameters": {"retry_after": 1}}
            return _refusal(429, "Too Many Requests: retry after 1", **retry)
        if chat not in self._chats:
            return _refusal(400, "Bad Request: chat not found")
        if chat in self.blocked:
            return _refusal(403, "Forbidden: bot was blocked by the user")
        if not text.strip():
            return _refusal(400, "Bad Request: message text is empty")
        if len(text) > 4096:
            return _refusal(400, "Bad Request: message is too long")
        self.sent[chat].put_nowait(text)
        self.everything.append(text)
        message = {
            "message_id": 1,
            "date": 1,
            "chat": {"id": chat, "type": "private"},
            "text": text,
        }
        return JSONResponse({"ok": True, "result": message})
