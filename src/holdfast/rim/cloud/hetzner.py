"""Hetzner Cloud through its own library, which blocks: each call runs in a thread.

A server's name is the intent's id, unique within a project by the provider's own rule. User data is
`cloud_init` of one join token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import requests
from hcloud import APIException, Client, HCloudException
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

from holdfast import __version__
from holdfast.errors import OperationFault, UsageError
from holdfast.rim.cloud.account import Account, cloud_init
from holdfast.wire.cloud import CreateServer, Server

T = TypeVar("T")
NETWORK_LABEL: Final = "holdfast-network"
REGION_LABEL: Final = "holdfast-region"
_DEFAULT: Final = "https://api.hetzner.cloud/v1"
_TIMEOUT_S: Final = 30.0
_LATER: Final = frozenset(
    {
        "conflict",
        "locked",
        "rate_limit_exceeded",
        "resource_unavailable",
        "server_error",
        "service_error",
        "maintenance",
        "timeout",
        "unavailable",
        "unknown_error",
    }
)
"""Error codes after which the same call may succeed."""
_OVER: Final = frozenset({"deleting"})


class HetznerCloud:
    """A `Cloud` in one project."""

    def __init__(self, account: Account, network: str, key: Callable[[], str]) -> None:
        self._account = account
        self._network = network
        self._key = key

    async def create(self, request: CreateServer) -> Server:
        """Order a server. Raises UsageError when the name is taken, OperationFault."""
        account, place = self._account, self._account.place(request.region)

        def work(client: Client) -> Server:
            made = client.servers.create(
                name=request.name,
                server_type=ServerType(name=account.size),
                image=Image(name=account.image),
                location=Location(name=place),
                user_data=cloud_init(request.user_data),
                labels={NETWORK_LABEL: self._network, REGION_LABEL: request.region},
            )
            return _server(made.server)

        return await self._call(work, f"order of {request.name}")

    async def list(self) -> tuple[Server, ...]:
        """Every server with our label."""

        def work(client: Client) -> tuple[Server, ...]:
            rows = client.servers.get_all(label_selector=f"{NETWORK_LABEL}={self._network}")
            return tuple(_server(row) for row in rows)

        return await self._call(work, "list")

    async def delete(self, name: str) -> None:
        """Destroy a server of ours; one that does not exist is no error."""

        def work(client: Client) -> None:
            found = client.servers.get_by_name(name)
            if found is not None and (found.labels or {}).get(NETWORK_LABEL) == self._network:
                client.servers.delete(found)

        await self._call(work, f"deletion of {name}")

    async def _call(self, work: Callable[[Client], T], what: str) -> T:
        def run() -> T:
            client = Client(
                token=self._key(),
                api_endpoint=self._account.endpoint or _DEFAULT,
                application_name="holdfast",
                application_version=__version__,
                timeout=_TIMEOUT_S,
            )
            return work(client)

        try:
            return await asyncio.to_thread(run)
        except APIException as error:
            raise self._refusal(error, what) from error
        except (HCloudException, requests.RequestException, LookupError) as error:
            raise OperationFault(f"{self._account.name}: {what} failed: {error}"[:300]) from error

    def _refusal(self, error: Any, what: str) -> OperationFault | UsageError:
        text = f"{self._account.name}: {what} failed: {error.message} ({error.code})"[:300]
        if error.code == "not_found":
            return OperationFault(text)  # gone between two calls
        if error.code in _LATER or (isinstance(error.code, int) and error.code >= 500):
            return OperationFault(text)
        return UsageError(text)


def _server(row: Any) -> Server:
    public = row.public_net
    four = public.ipv4.ip if public and public.ipv4 else ""
    return Server(
        name=row.name,
        region=(row.labels or {}).get(REGION_LABEL, ""),
        address=four or "",
        state="gone" if row.status in _OVER else "running",
        created_at=row.created.timestamp() if row.created else 0.0,
    )
