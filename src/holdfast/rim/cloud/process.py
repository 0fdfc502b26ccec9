"""HQ's side of a process provider: `wire.cloud` spoken to its daemon (D31)."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.rim.clock import Clock
from holdfast.rim.loopback import LOOPBACK_REPLY_BYTES_MAX, LoopbackClient
from holdfast.wire.cloud import (
    CloudLog,
    CreateServer,
    KeyInfo,
    KeyList,
    KeyMade,
    KeyOrder,
    Server,
    ServerList,
)
from holdfast.wire.codec import unpack_json


class ProcessCloud:
    """A `Cloud` at a daemon's `endpoint`, opened with the provider's `key`."""

    def __init__(self, endpoint: str, key: str | Callable[[], str], clock: Clock) -> None:
        self._client = LoopbackClient(endpoint, key, clock)

    async def create(self, request: CreateServer) -> Server:
        """Order a machine. Raises UsageError when the name is taken, OperationFault."""
        try:
            status, data = await self._client.exchange("POST", "/v1/servers", request)
            if status == 409:
                raise UsageError(f"the provider has a server called {request.name} already")
            if status in (200, 201):
                return unpack_json(Server, data, bytes_max=LOOPBACK_REPLY_BYTES_MAX)
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault
        raise _refusal(status, f"order of {request.name} in {request.region}")

    async def list(self) -> tuple[Server, ...]:
        """Every machine of the account."""
        try:
            return (await self._client.call("GET", "/v1/servers", None, ServerList)).servers
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault

    async def delete(self, name: str) -> None:
        """Destroy a machine; one that does not exist is no error."""
        path = "/v1/servers/" + quote(name, safe="")
        try:
            status, _ = await self._client.exchange("DELETE", path, None)
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault
        if not (200 <= status < 300 or status == 404):
            raise _refusal(status, f"deletion of {name}")

    async def scopes(self) -> tuple[str, ...]:
        """What the key may do, by the provider's word."""
        try:
            return (await self._client.call("GET", "/v1/key", None, KeyInfo)).scopes
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault

    async def make_key(self, scopes: tuple[str, ...], note: str = "") -> KeyMade:
        """Another key of the account. Raises UsageError when ours may not."""
        try:
            return await self._client.call("POST", "/v1/keys", KeyOrder(scopes, note), KeyMade)
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault

    async def keys(self) -> tuple[KeyInfo, ...]:
        """What is out, but for the account's own."""
        try:
            return (await self._client.call("GET", "/v1/keys", None, KeyList)).keys
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault

    async def revoke_key(self, id: str) -> None:
        """Take a key back."""
        path = "/v1/keys/" + quote(id, safe="")
        try:
            await self._client.call("DELETE", path, None, KeyInfo)
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault

    async def log(self) -> CloudLog:
        """The provider's own account of what it was told and did."""
        try:
            return await self._client.call("GET", "/v1/log", None, CloudLog)
        except PeerFault as fault:
            raise OperationFault(f"provider: {fault}") from fault


def _refusal(status: int, what: str) -> OperationFault | UsageError:
    if status >= 500 or status == 429:
        return OperationFault(f"the provider failed at the {what} (status {status})")
    return UsageError(f"the provider refused the {what} (status {status}); check key and region")
