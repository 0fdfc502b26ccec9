"""Xray's gRPC API, as far as an entry and a core need it: users, lanes, counters.

Adding and removing a user or a lane touches no other connection, which is why seed 001's "few
seconds drop" at each change does not happen here.
"""

from __future__ import annotations

from typing import Final

from holdfast.access.protobuf import field, fields
from holdfast.access.xray_config import (
    GRPC_TAG,
    HOP_CREDENTIAL,
    LOOPBACK,
    XHTTP_TAG,
    email_of,
)
from holdfast.logic.access.accounting import Total
from holdfast.rim.clock import Clock
from holdfast.rim.grpc import GrpcChannel, GrpcFault
from holdfast.wire.access import User

_HANDLER: Final = "/xray.app.proxyman.command.HandlerService/"
_ROUTING: Final = "/xray.app.router.command.RoutingService/"
_STATS: Final = "/xray.app.stats.command.StatsService/"
INBOUNDS: Final = (GRPC_TAG, XHTTP_TAG)


class XrayApi:
    """Speaks to the Xray whose API listens at `path`."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._channel = GrpcChannel(path, clock)

    async def close(self) -> None:
        """Let the connection go."""
        await self._channel.close()

    async def add_user(self, user: User) -> None:
        """Let a device in, on both transports. One that is in already is no error."""
        account = _typed("xray.proxy.vless.Account", field(1, user.credential) + field(3, "none"))
        known = field(2, email_of(user)) + field(3, account)
        operation = _typed("xray.app.proxyman.command.AddUserOperation", field(1, known))
        await self._alter(operation, "already exists")

    async def remove_user(self, user: User) -> None:
        """Let a device in no more; connections it has are another matter (`online`)."""
        operation = _typed(
            "xray.app.proxyman.command.RemoveUserOperation", field(1, email_of(user))
        )
        await self._alter(operation, "not found")

    async def add_lane(self, label: str, port: int) -> None:
        """A way out by the local Envoy's port, and the rule that leads a lane's devices there."""
        address = field(1, bytes(map(int, LOOPBACK.split("."))))
        account = _typed("xray.proxy.vless.Account", field(1, HOP_CREDENTIAL) + field(3, "none"))
        server = field(1, address) + field(2, port) + field(3, field(3, account))
        outbound = field(1, f"lane-{label}") + field(
            3, _typed("xray.proxy.vless.outbound.Config", field(1, server))
        )
        await self._call(_HANDLER + "AddOutbound", field(1, outbound), "existing tag")
        rule = field(1, f"lane-{label}") + field(7, f"regexp:@{label}$")
        rule += field(19, f"lane-{label}")
        config = _typed("xray.app.router.Config", field(2, rule))
        await self._call(_ROUTING + "AddRule", field(1, config) + field(2, 1), "duplicate")

    async def counters(self) -> dict[str, Total]:
        """Bytes of every user by its name, since this Xray began."""
        reply = await self._channel.call(_STATS + "QueryStats", field(1, "user>>>"))
        found: dict[str, Total] = {}
        for _, item in fields(reply):
            assert isinstance(item, bytes), "a Stat is a message"
            name, value = "", 0
            for number, content in fields(item):
                if number == 1 and isinstance(content, bytes):
                    name = content.decode()
                elif number == 2 and isinstance(content, int):
                    value = content
            parts = name.split(">>>")
            if len(parts) != 4 or parts[2] != "traffic":
                continue
            held = found.get(parts[1], Total())
            found[parts[1]] = (
                Total(value, held.download) if parts[3] == "uplink" else Total(held.upload, value)
            )
        return found

    async def online(self, user: User) -> set[str]:
        """The addresses from which a device is connected now."""
        request = field(1, f"user>>>{email_of(user)}>>>online")
        try:
            reply = await self._channel.call(_STATS + "GetStatsOnlineIpList", request)
        except GrpcFault:
            return set()  # it never connected
        found: set[str] = set()
        for number, entry in fields(reply):
            if number == 2 and isinstance(entry, bytes):
                found |= {
                    host.decode()
                    for key, host in fields(entry)
                    if key == 1 and isinstance(host, bytes)
                }
        return found

    async def users_online(self) -> int:
        """How many devices are connected now."""
        reply = await self._channel.call(_STATS + "GetAllOnlineUsers", b"")
        return sum(1 for number, _ in fields(reply) if number == 1)

    async def _alter(self, operation: bytes, forgiven: str) -> None:
        for tag in INBOUNDS:
            request = field(1, tag) + field(2, operation)
            await self._call(_HANDLER + "AlterInbound", request, forgiven)

    async def _call(self, method: str, request: bytes, forgiven: str) -> None:
        try:
            await self._channel.call(method, request)
        except GrpcFault as fault:
            if forgiven not in str(fault):
                raise


def _typed(name: str, value: bytes) -> bytes:
    """A TypedMessage."""
    return field(1, name) + field(2, value)
