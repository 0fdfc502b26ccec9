"""EC2 and what speaks like it, through Apache Libcloud, which blocks: each call runs in a thread.

Libcloud knows fifty providers, but its drivers differ in what they promise: one that keeps no label
would let us order the same machine again and again. So only those are taken that the conformance
suite ran against. Names are not unique there: we look before we order, and pass the name as the
idempotency token. What is ours is known by its tags.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from libcloud.common.exceptions import BaseHTTPError
from libcloud.common.types import InvalidCredsError, LibcloudError
from libcloud.compute.base import Node, NodeImage
from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.cloud.account import Account, cloud_init
from holdfast.wire.cloud import CreateServer, Server

T = TypeVar("T")
NETWORK: Final = "holdfast-network"
REGION: Final = "holdfast-region"
_OVER: Final = frozenset(
    {NodeState.TERMINATED, NodeState.STOPPED, NodeState.ERROR, NodeState.STOPPING}
)
_TIMEOUT_S: Final = 30


class LibcloudCloud:
    """A `Cloud` at any provider that libcloud has a driver for."""

    def __init__(self, account: Account, network: str, key: Callable[[], str]) -> None:
        self._account = account
        self._network = network
        self._key = key

    async def create(self, request: CreateServer) -> Server:
        """Order a machine. Raises UsageError when the name is taken, OperationFault."""
        account, place = self._account, self._account.place(request.region)

        def work() -> Server:
            driver = self._driver(place)
            if any(_state(node) == "running" for node in self._named(driver, request.name)):
                raise UsageError(f"the provider has a machine called {request.name} already")
            sizes = [s for s in driver.list_sizes() if account.size in (s.id, s.name)]
            if not sizes:
                raise UsageError(f"{account.name} has no size {account.size!r}")
            node = driver.create_node(
                name=request.name,
                size=sizes[0],
                image=NodeImage(account.image, account.image, driver),
                ex_userdata=cloud_init(request.user_data),
                ex_metadata={NETWORK: self._network, REGION: request.region},
                ex_clienttoken=request.name,
            )
            return _server(node, request.region)

        return await self._call(work, f"order of {request.name}")

    async def list(self) -> tuple[Server, ...]:
        """Every machine of ours in every region."""

        def work() -> tuple[Server, ...]:
            found: dict[str, Server] = {}
            for region in self._account.regions:
                for node in self._driver(self._account.place(region)).list_nodes():
                    if self._is_ours(node):
                        known = found.get(node.name)
                        if known is None or known.state == "gone":
                            found[node.name] = _server(node, region)
            return tuple(found.values())

        return await self._call(work, "list")

    async def delete(self, name: str) -> None:
        """Destroy a machine of ours; one that does not exist is no error."""

        def work() -> None:
            for region in self._account.regions:
                driver = self._driver(self._account.place(region))
                for node in self._named(driver, name):
                    if node.state != NodeState.TERMINATED and not driver.destroy_node(node):
                        raise OperationFault(f"{self._account.name} did not delete {name}")

        await self._call(work, f"deletion of {name}")

    def _named(self, driver: Any, name: str) -> Sequence[Any]:
        return [n for n in driver.list_nodes() if n.name == name and self._is_ours(n)]

    def _is_ours(self, node: Node) -> bool:
        return bool(node.extra.get("tags", {}).get(NETWORK) == self._network)

    def _driver(self, place: str) -> Any:
        account = self._account
        id, _, secret = self._key().partition(":")
        options: dict[str, Any] = {"timeout": _TIMEOUT_S, "signature_version": "4"}
        if account.endpoint:
            parts = urlsplit(account.endpoint)
            options |= {
                "secure": parts.scheme == "https",
                "host": parts.hostname,
                "port": parts.port,
            }
        if place:
            options["region"] = place
        try:
            return get_driver(account.driver)(id, secret, **options)
        except (AttributeError, ValueError) as error:
            text = f"libcloud has no driver {account.driver!r} for {place!r}: {error}"
            raise UsageError(text) from error

    async def _call(self, work: Callable[[], T], what: str) -> T:
        name = self._account.name
        try:
            return await asyncio.to_thread(work)
        except InvalidCredsError as error:
            raise UsageError(f"{name} refuses our key ({what})") from error
        except BaseHTTPError as error:
            text = f"{name}: {what} failed: {error}"[:300]
            later = error.code >= 500 or error.code in (408, 429)
            raise (OperationFault(text) if later else UsageError(text)) from error
        except (LibcloudError, requests.RequestException, OSError) as error:
            raise OperationFault(f"{name}: {what} failed: {error}"[:300]) from error


def _state(node: Node) -> str:
    return "gone" if node.state in _OVER else "running"


def _server(node: Node, region: str) -> Server:
    addresses = [*node.public_ips, *node.private_ips]
    return Server(
        name=node.name,
        region=region,
        address=next((str(address) for address in addresses if address), ""),
        state=_state(node),
        created_at=node.created_at.timestamp() if node.created_at else 0.0,
    )
