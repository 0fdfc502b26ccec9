"""The routes of the web page.

| method and path       | who     | answer                                             |
|-----------------------|---------|----------------------------------------------------|
| GET  /                | session | the fleet page                                     |
| GET  /fleet/live      | session | the part of it that lives                          |
| GET  /fleet/events    | session | server-sent events: `fleet`, data = version number |
| GET  /fleet.json      | session | `FleetPage`                                        |
| GET  /login?code=C    | anyone  | session cookie, once for each code                 |
| POST /logout          | session | ends the session                                   |
| GET  /assets/{name}   | anyone  | styles and scripts                                 |
| GET  /healthz         | anyone  | `{"ok":true}`                                      |

`/` and `/fleet/live` take `kind`, `find`, and `provider` with `region`; words they do not know mean
all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from holdfast.hq.brain_words import Kind
from holdfast.limits import (
    LOGIN_SESSION_S,
    PAGE_FIND_LETTERS_MAX,
    PAGE_KEEPALIVE_S,
    PAGE_STREAMS_MAX,
)
from holdfast.web import render, static
from holdfast.web.board import Board
from holdfast.web.grid import Lens
from holdfast.web.guard import cookie_name, guarded, session, signed_out
from holdfast.web.login import Login

_JSON = msgspec.json.Encoder()


def door_routes(login: Login) -> list[Route]:
    """Signing in and out, and assets: what every page of ours has."""
    door = _Door(login)
    return [
        Route("/login", guarded(door.login, login, public=True)),
        Route("/logout", guarded(door.logout, login), methods=["POST"]),
        Route("/assets/{name}", guarded(_asset, login, public=True)),
        Route("/healthz", guarded(_healthz, login, public=True)),
    ]


def routes(board: Board, login: Login) -> list[Route]:
    """Every route of the page, each behind the door of `guard`."""
    pages = _Pages(board, login)

    def route(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
        return Route(path, guarded(endpoint, login), methods=["GET"])

    return [
        route("/", pages.fleet),
        route("/fleet/live", pages.live),
        route("/fleet/events", pages.events),
        route("/fleet.json", pages.json),
        *door_routes(login),
    ]


def lens_of(request: Request) -> Lens:
    """What the query asks to see."""
    query = request.query_params
    kinds = {str(kind): kind for kind in Kind}
    kind = kinds.get(query.get("kind", ""))
    provider, region = query.get("provider", ""), query.get("region", "")
    find = " ".join(query.get("find", "")[:PAGE_FIND_LETTERS_MAX].split())
    return Lens(kind, provider, region, find) if provider and region else Lens(kind, find=find)


class _Pages:
    """The endpoints that know the board and the login."""

    def __init__(self, board: Board, login: Login) -> None:
        self._board = board
        self._login = login

    async def fleet(self, request: Request) -> Response:
        return await self._html(request, whole=True)

    async def live(self, request: Request) -> Response:
        return await self._html(request, whole=False)

    async def _html(self, request: Request, whole: bool) -> Response:
        """Rendering a large fleet takes a while, so HQ's loop goes on meanwhile."""
        version, lens = self._board.version(), lens_of(request)
        return HTMLResponse(await asyncio.to_thread(render.fleet, version, lens, whole=whole))

    async def json(self, request: Request) -> Response:
        body = _JSON.encode(self._board.version().page)
        return Response(body, media_type="application/json")

    async def events(self, request: Request) -> Response:
        if request.method == "HEAD":  # asked by a page that wants to know whether it is signed in
            return Response(status_code=204)
        if self._board.streams >= PAGE_STREAMS_MAX:
            return render.notice(503, "Too many tabs", "Close one that shows this page.")
        return StreamingResponse(
            self._stream(session(request)),
            media_type="text/event-stream",
            headers={"x-accel-buffering": "no"},
        )

    async def _stream(self, token: str) -> AsyncIterator[bytes]:
        """A line for each version, a comment while nothing happens; ends with the session."""
        self._board.streams += 1
        number = 0
        try:
            yield b"retry: 2000\n\n"
            while self._login.holds(token) and not self._board.closed:
                version = await self._board.newer_than(number, PAGE_KEEPALIVE_S)
                if version is None:
                    yield b": still here\n\n"
                    continue
                number = version.number
                yield f"event: fleet\nid: {number}\ndata: {number}\n\n".encode()
        finally:
            self._board.streams -= 1


class _Door:
    """Signing in and out."""

    def __init__(self, login: Login) -> None:
        self._login = login

    async def login(self, request: Request) -> Response:
        if request.method == "HEAD":  # a preview must not burn the code
            return Response(status_code=204)
        token = self._login.enter(request.query_params.get("code", ""))
        if token is None:
            title = "This link is spent"
            return signed_out(self._login, 403, title)
        response = render.welcome()
        response.set_cookie(
            cookie_name(request),
            token,
            max_age=int(LOGIN_SESSION_S),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def logout(self, request: Request) -> Response:
        self._login.leave(session(request))
        response = RedirectResponse("/", 303)
        response.delete_cookie(cookie_name(request), path="/", httponly=True, samesite="strict")
        return response


async def _asset(request: Request) -> Response:
    asset = static.assets().get(request.path_params["name"])
    if asset is None:
        return render.notice(404, "Not here", "There is no such file.")
    kept = "max-age=31536000, immutable" if request.url.query == static.stamp() else "no-cache"
    return Response(asset.body, media_type=asset.media_type, headers={"cache-control": kept})


async def _healthz(request: Request) -> Response:
    return Response(b'{"ok":true}', media_type="application/json")
