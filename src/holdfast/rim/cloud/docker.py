"""Containers as machines: Docker's Engine API (1.41), which podman speaks too.

A container's name is the intent's id, so the engine itself refuses a second one. It gets the join
token in its environment, may use no privilege, and is found again by the network's label.
"""

from __future__ import annotations

from typing import Any, Final

import httpx2
import msgspec

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.cloud.account import TOKEN_VARIABLE, Account
from holdfast.wire.cloud import CreateServer, Server

NETWORK_LABEL: Final = "net.holdfast.network"
REGION_LABEL: Final = "net.holdfast.region"
_VERSION: Final = "/v1.41"
_TIMEOUT_S: Final = 60.0
_UNIX: Final = "unix://"
_ALIVE: Final = frozenset({"created", "running", "restarting", "paused"})
_TAKEN: Final = "already in use"
"""How podman says 409, with status 500."""
PIDS_MAX: Final = 512
"""Processes and threads of one container: a server has dozens."""


class DockerCloud:
    """A `Cloud` on one engine. `network` is the label of what is ours."""

    def __init__(self, account: Account, network: str) -> None:
        self._account = account
        self._network = network
        path = account.endpoint.removeprefix(_UNIX)
        local = path != account.endpoint
        self._base = "http://docker" if local else account.endpoint.rstrip("/")
        self._uds = path if local else None

    async def create(self, request: CreateServer) -> Server:
        """Make and start a container. Raises UsageError when the name is taken, OperationFault."""
        self._account.place(request.region)
        body = {
            "Image": self._account.image,
            "Env": [f"{TOKEN_VARIABLE}={request.user_data}"],
            "Labels": {NETWORK_LABEL: self._network, REGION_LABEL: request.region},
            "HostConfig": {
                "RestartPolicy": {"Name": "unless-stopped"},
                "SecurityOpt": ["no-new-privileges"],
                "CapDrop": ["ALL"],
                "PidsLimit": PIDS_MAX,
            },
        }
        status, data = await self._ask(
            "POST", "/containers/create", params={"name": request.name}, body=body
        )
        if status == 409 or (status == 500 and _TAKEN in str(data)):
            await self._start_made(request.name)
            raise UsageError(f"the engine has a container called {request.name} already")
        if status != 201:
            raise self._refusal(status, data, f"order of {request.name}")
        await self._start(request.name)
        found = next((s for s in await self.list() if s.name == request.name), None)
        if found is None:
            raise OperationFault(f"{request.name} was made and is not listed")
        return found

    async def list(self) -> tuple[Server, ...]:
        """Every container with our label."""
        filters = msgspec.json.encode({"label": [f"{NETWORK_LABEL}={self._network}"]}).decode()
        params = {"all": "true", "filters": filters}
        status, data = await self._ask("GET", "/containers/json", params=params)
        if status != 200 or not isinstance(data, list):
            raise self._refusal(status, data, "list")
        return tuple(_server(row) for row in data)

    async def delete(self, name: str) -> None:
        """Kill and remove a container with its disk; one that does not exist is no error."""
        if not any(server.name == name for server in await self.list()):
            return  # a name that is not ours is not ours to remove
        params = {"force": "true", "v": "true"}
        status, data = await self._ask("DELETE", f"/containers/{name}", params=params)
        if status not in (204, 200, 404, 409):  # 409: its removal is under way
            raise self._refusal(status, data, f"deletion of {name}")

    async def _start_made(self, name: str) -> None:
        """A container that was made and never started: we died between the two calls."""
        status, data = await self._ask("GET", f"/containers/{name}/json")
        state = data.get("State", {}) if status == 200 else {}
        labels = data.get("Config", {}).get("Labels") or {} if status == 200 else {}
        if state.get("Status") == "created" and labels.get(NETWORK_LABEL) == self._network:
            await self._start(name)

    async def _start(self, name: str) -> None:
        status, data = await self._ask("POST", f"/containers/{name}/start")
        if status not in (204, 304):
            raise self._refusal(status, data, f"start of {name}")

    async def _ask(
        self, method: str, path: str, *, params: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        transport = httpx2.AsyncHTTPTransport(uds=self._uds) if self._uds else None
        try:
            async with httpx2.AsyncClient(
                transport=transport, base_url=self._base, timeout=_TIMEOUT_S, trust_env=False
            ) as client:
                reply = await client.request(method, _VERSION + path, params=params, json=body)
        except (httpx2.HTTPError, OSError) as error:
            text = f"the engine at {self._account.endpoint} does not answer: {error}"
            raise OperationFault(text) from error
        try:
            return reply.status_code, reply.json() if reply.content else {}
        except ValueError:
            return reply.status_code, {"message": reply.text[:200]}

    def _refusal(self, status: int, data: Any, what: str) -> OperationFault | UsageError:
        said = data.get("message", "") if isinstance(data, dict) else ""
        text = f"{self._account.name}: {what} failed with {status}: {said}"[:300]
        if status == 404:
            return UsageError(f"{text}; pull or build the image {self._account.image} there")
        if 400 <= status < 500 and status not in (408, 409, 429):
            return UsageError(text)
        return OperationFault(text)


def _server(row: dict[str, Any]) -> Server:
    """A row of the engine's list. Podman names no address there for a container that is down."""
    networks = (row.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [net.get("IPAddress") or "" for net in networks.values() if net]
    return Server(
        name=(row.get("Names") or [""])[0].lstrip("/"),
        region=(row.get("Labels") or {}).get(REGION_LABEL, ""),
        address=next((address for address in addresses if address), ""),
        state="running" if row.get("State") in _ALIVE else "gone",
        created_at=float(row.get("Created", 0)),
    )
