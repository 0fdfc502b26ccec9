"""Hetzner Cloud's API as far as a server's life goes, after its reference (docs.hetzner.cloud).

Names are unique within a project, labels select, errors are `{"error": {code, message}}`, lists
come in pages, and deleting answers with an action. A fake: nothing boots.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast.rim.loopback_server import LoopbackServer

TOKEN = "h" * 64
PAGE = 25


class FakeHcloud:
    def __init__(self) -> None:
        self.servers: dict[int, dict[str, Any]] = {}
        self.user_data: dict[str, str] = {}
        self._next = 100
        routes = [
            Route("/v1/servers", self._list),
            Route("/v1/servers", self._create, methods=["POST"]),
            Route("/v1/servers/{id:int}", self._delete, methods=["DELETE"]),
        ]
        self._server = LoopbackServer(Starlette(routes=routes))

    async def start(self) -> str:
        await self._server.start("127.0.0.1", 0)
        return f"http://{self._server.address}/v1"

    async def stop(self) -> None:
        await self._server.stop()

    async def _list(self, request: Request) -> JSONResponse:
        if not _known(request):
            return _error(401, "unauthorized")
        rows = list(self.servers.values())
        if name := request.query_params.get("name"):
            rows = [row for row in rows if row["name"] == name]
        if selector := request.query_params.get("label_selector"):
            key, _, value = selector.partition("=")
            rows = [row for row in rows if row["labels"].get(key) == value]
        page = int(request.query_params.get("page", "1"))
        size = min(int(request.query_params.get("per_page", str(PAGE))), 50)
        last = max(1, -(-len(rows) // size))
        pagination = {
            "page": page,
            "per_page": size,
            "previous_page": page - 1 or None,
            "next_page": page + 1 if page < last else None,
            "last_page": last,
            "total_entries": len(rows),
        }
        shown = rows[(page - 1) * size : page * size]
        return JSONResponse({"servers": shown, "meta": {"pagination": pagination}})

    async def _create(self, request: Request) -> JSONResponse:
        if not _known(request):
            return _error(401, "unauthorized")
        body = await request.json()
        for field in ("name", "server_type", "image"):
            if not body.get(field):
                return _error(422, "invalid_input")
        if any(row["name"] == body["name"] for row in self.servers.values()):
            return _error(409, "uniqueness_error")
        if body.get("location") not in ("fsn1", "hel1"):
            return _error(422, "invalid_input")
        if body["server_type"] == "sold-out":
            return _error(412, "resource_unavailable")
        number, self._next = self._next, self._next + 1
        self.user_data[body["name"]] = body.get("user_data", "")
        row = {
            "id": number,
            "name": body["name"],
            "status": "initializing",
            "created": "2026-01-30T23:55:00+00:00",
            "public_net": {
                "ipv4": {
                    "id": number,
                    "ip": f"198.51.100.{number % 250}",
                    "blocked": False,
                    "dns_ptr": "",
                },
                "ipv6": {
                    "id": number,
                    "ip": "2001:db8::/64",
                    "blocked": False,
                    "dns_ptr": [],
                },
                "floating_ips": [],
                "firewalls": [],
            },
            "labels": body.get("labels", {}),
            "volumes": [],
            "private_net": [],
            "protection": {"delete": False, "rebuild": False},
            "server_type": {"id": 1, "name": body["server_type"]},
            "image": {"id": 1, "name": body["image"]},
            "location": {"id": 1, "name": body["location"]},
            "iso": None,
            "load_balancers": [],
        }
        self.servers[number] = row
        reply = {"server": row, "action": _action(number), "next_actions": []}
        return JSONResponse({**reply, "root_password": None}, 201)

    async def _delete(self, request: Request) -> JSONResponse:
        if not _known(request):
            return _error(401, "unauthorized")
        if self.servers.pop(request.path_params["id"], None) is None:
            return _error(404, "not_found")
        return JSONResponse({"action": _action(request.path_params["id"])})


def _known(request: Request) -> bool:
    return request.headers.get("authorization") == f"Bearer {TOKEN}"


def _error(status: int, code: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": code, "details": None}}, status)


def _action(server: int) -> dict[str, Any]:
    return {
        "id": server,
        "command": "create_server",
        "status": "success",
        "progress": 100,
        "started": "2026-01-30T23:55:00+00:00",
        "finished": "2026-01-30T23:56:00+00:00",
        "resources": [{"id": server, "type": "server"}],
        "error": None,
    }
