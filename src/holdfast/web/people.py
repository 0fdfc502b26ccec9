"""The page of a device: pair, see devices, friends, folders, copies and what is at risk.

| method and path  | who     | answer                                        |
|------------------|---------|-----------------------------------------------|
| GET  /           | session | the page                                      |
| GET  /live       | session | the part of it that lives                     |
| GET  /face.json  | session | `Face`                                        |
| POST /pair/wait  | session | begin to wait for a friend                    |
| POST /pair/meet  | session | meet one: `code`, `at` (urlencoded)           |

and `/login`, `/logout`, `/assets/...`, `/healthz` as the fleet page has them.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from holdfast.device.face import Face
from holdfast.web import render
from holdfast.web.fleet import door_routes
from holdfast.web.guard import guarded
from holdfast.web.login import Login
from holdfast.wire.qr import qr_svg

FORM_BYTES_MAX = 16 * 1024
_JSON = msgspec.json.Encoder()


class Source(Protocol):
    """The device behind the page."""

    def face(self) -> Face: ...

    async def wait_for_friend(self) -> None: ...

    async def meet(self, code: str, at: str) -> None: ...


def routes(source: Source, login: Login) -> list[Route]:
    """Every route of the page, each behind the door of `guard`."""
    pages = _Pages(source)
    return [
        Route("/", guarded(pages.page, login)),
        Route("/live", guarded(pages.live, login)),
        Route("/face.json", guarded(pages.json, login)),
        Route("/pair/wait", guarded(pages.wait, login), methods=["POST"]),
        Route("/pair/meet", guarded(pages.meet, login), methods=["POST"]),
        *door_routes(login),
    ]


class _Pages:
    def __init__(self, source: Source) -> None:
        self._source = source

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._html("people.html"))

    async def live(self, request: Request) -> Response:
        return HTMLResponse(self._html("people_live.html"))

    async def json(self, request: Request) -> Response:
        return Response(_JSON.encode(self._source.face()), media_type="application/json")

    async def wait(self, request: Request) -> Response:
        await self._source.wait_for_friend()
        return RedirectResponse("/", 303)

    async def meet(self, request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > FORM_BYTES_MAX:
                return render.notice(413, "Too long", "A code is two words, a line a few hundred.")
        fields = parse_qs(body.decode(errors="replace"))
        await self._source.meet(fields.get("code", [""])[0], fields.get("at", [""])[0])
        return RedirectResponse("/", 303)

    def _html(self, template: str) -> str:
        face = self._source.face()
        qr = qr_svg(face.meeting.line) if face.meeting.line else ""
        return render.page(template, face=face, qr=qr)
