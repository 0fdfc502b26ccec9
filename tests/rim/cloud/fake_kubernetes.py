"""An API server as far as pods and secrets go, after the Kubernetes API reference (v1).

Objects are created once (409 `AlreadyExists`), listed by label, and gone when deleted; errors are
`Status` objects; a pod without a container, an image or a valid name is refused with 422, as by the
real one. A fake: nothing is scheduled, a pod is Pending for one list and then Running.
"""

from __future__ import annotations

import base64
import re
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast.rim.loopback_server import LoopbackServer

TOKEN = "kubernetes-bearer-token"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_KINDS = {"pods": "Pod", "secrets": "Secret"}


class FakeKubernetes:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._next = 1
        base = "/api/v1/namespaces/{namespace}/{kind}"
        routes = [
            Route(base, self._list),
            Route(base, self._create, methods=["POST"]),
            Route(base + "/{name}", self._get),
            Route(base + "/{name}", self._delete, methods=["DELETE"]),
        ]
        self._server = LoopbackServer(Starlette(routes=routes))

    async def start(self) -> str:
        await self._server.start("127.0.0.1", 0)
        return f"http://{self._server.address}"

    async def stop(self) -> None:
        await self._server.stop()

    def token_of(self, name: str) -> str:
        """What the pod's secret holds."""
        secret = self.objects["holdfast", "secrets", name]
        return base64.b64decode(secret["data"]["token"]).decode()

    async def _create(self, request: Request) -> JSONResponse:
        if refusal := _stranger(request):
            return refusal
        namespace, kind = request.path_params["namespace"], request.path_params["kind"]
        body = await request.json()
        name = body.get("metadata", {}).get("name", "")
        if not _NAME.fullmatch(name) or body.get("kind") != _KINDS[kind]:
            return _status(422, "Invalid", f"{kind} {name!r} is invalid")
        if kind == "pods":
            containers = body.get("spec", {}).get("containers") or []
            if not containers or not all(c.get("name") and c.get("image") for c in containers):
                return _status(422, "Invalid", "spec.containers: Required value")
        key = (namespace, kind, name)
        if key in self.objects:
            return _status(409, "AlreadyExists", f'{kind} "{name}" already exists')
        number, self._next = self._next, self._next + 1
        body["metadata"] |= {
            "namespace": namespace,
            "uid": f"uid-{number}",
            "resourceVersion": str(number),
            "creationTimestamp": "2026-01-30T23:55:00Z",
        }
        if kind == "secrets":
            words = body.pop("stringData", {})
            data = {k: base64.b64encode(v.encode()).decode() for k, v in words.items()}
            body["data"] = {**body.get("data", {}), **data}
        else:
            body["status"] = {"phase": "Pending"}
        self.objects[key] = body
        return JSONResponse(body, 201)

    async def _list(self, request: Request) -> JSONResponse:
        if refusal := _stranger(request):
            return refusal
        namespace, kind = request.path_params["namespace"], request.path_params["kind"]
        wanted = [
            pair.partition("=")
            for pair in request.query_params.get("labelSelector", "").split(",")
            if pair
        ]
        rows = [
            row
            for (space, what, _), row in self.objects.items()
            if (space, what) == (namespace, kind)
            and all(row["metadata"].get("labels", {}).get(k) == v for k, _, v in wanted)
        ]
        reply = {"kind": f"{_KINDS[kind]}List", "apiVersion": "v1", "metadata": {}, "items": rows}
        answer = JSONResponse(reply)
        for number, row in enumerate(rows):
            if kind == "pods":
                row["status"] = {"phase": "Running", "podIP": f"10.244.0.{number + 2}"}
        return answer

    async def _get(self, request: Request) -> JSONResponse:
        if refusal := _stranger(request):
            return refusal
        key: Any = tuple(request.path_params[k] for k in ("namespace", "kind", "name"))
        found = self.objects.get(key)
        return JSONResponse(found) if found else _status(404, "NotFound", "not found")

    async def _delete(self, request: Request) -> JSONResponse:
        if refusal := _stranger(request):
            return refusal
        key: Any = tuple(request.path_params[k] for k in ("namespace", "kind", "name"))
        found = self.objects.pop(key, None)
        return JSONResponse(found) if found else _status(404, "NotFound", "not found")


def _stranger(request: Request) -> JSONResponse | None:
    if request.headers.get("authorization") == f"Bearer {TOKEN}":
        return None
    return _status(401, "Unauthorized", "Unauthorized")


def _status(code: int, reason: str, message: str) -> JSONResponse:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return JSONResponse({**status, "message": message, "reason": reason, "code": code}, code)
