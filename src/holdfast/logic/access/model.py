"""The nouns of the access layer (seeds 000 and 001, D35).

A *cell* is a set of entries and cores behind one name: its entries answer clients under `domain`,
its cores answer entries under `core_domain`, and nothing in it knows another cell. A *member* has
*devices*; a device has one VLESS credential, one subscription and one cell. A *lane* is the way of
one owner's devices through a cell: the owner's own cores first, others in reserve.

Times are Unix seconds, volumes bytes, 0 where a limit is none.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

import msgspec

from holdfast.errors import UsageError
from holdfast.limits.access import EPOCH_SECRET_BYTES, POLICY_RULES_MAX, RESERVE_BYTES_DEFAULT
from holdfast.logic.fleet.model import NodeId

CellId = str
"""A label: lower-case letters, digits and dashes, at most 32."""
DeviceId = str
"""16 hexadecimal digits, random: means nothing outside the registry."""
LABEL: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
DOMAIN: Final = re.compile(r"(?=.{4,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
SHARED_LANE: Final = ""
"""The lane of devices whose member owns no core: reserve cores only."""


class CellState(StrEnum):
    """active; isolated (compromised: nobody is sent there, its clients move); retired for good."""

    ACTIVE = "active"
    ISOLATED = "isolated"
    RETIRED = "retired"


class Standing(StrEnum):
    """Of a member or a device."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class Transport(StrEnum):
    """How VLESS travels inside TLS between client and entry."""

    GRPC = "grpc"
    XHTTP = "xhttp"


class PathEpoch(msgspec.Struct, frozen=True):
    """One generation of secret paths. `secret` is 8 random bytes."""

    number: int
    secret: bytes
    opened_at: float

    def service_name(self) -> str:
        """The gRPC service; never starts with a slash, which would select another mode."""
        assert len(self.secret) == EPOCH_SECRET_BYTES
        return f"api.v2.rpc.{self.secret.hex()}"

    def path(self) -> str:
        """The XHTTP path, with both slashes."""
        assert len(self.secret) == EPOCH_SECRET_BYTES
        return f"/assets/{self.secret.hex()}/"


class Cell(msgspec.Struct, frozen=True):
    """One cell. `epochs` oldest first; the last is what new subscriptions get."""

    id: CellId
    domain: str
    """What clients send as SNI."""
    core_domain: str
    """What entries send as SNI, whichever core they dial."""
    epochs: tuple[PathEpoch, ...]
    created_at: float
    state: CellState = CellState.ACTIVE
    successor: CellId = ""
    """The cell that was made in place of this one."""
    turns_at: float = 0.0
    """When the next epoch opens."""
    advertised: int = 0
    """The number of the epoch that subscriptions name; newer ones are on their way to entries."""

    def newest(self) -> PathEpoch:
        """The epoch of a subscription that is fetched now."""
        assert self.epochs, "a cell has an epoch from its first moment"
        told = [epoch for epoch in self.epochs if epoch.number <= self.advertised]
        return told[-1] if told else self.epochs[0]


class Entry(msgspec.Struct, frozen=True):
    """An entry as subscriptions and drills see it. `addresses` are `host:port`."""

    name: str
    node: NodeId
    cell: CellId
    region: str
    owner: str
    addresses: tuple[str, ...]
    alive: bool = True
    """Headquarters hears its heartbeats."""
    draining: bool = False


class ExitPolicy(msgspec.Struct, frozen=True):
    """What a core's owner allows (seed 000: the final decision stays with them).

    Private and loopback ranges are refused whatever this says. `ports` empty allows every port but
    those of `ports_denied`; 25, 465 and 587 (mail) are denied unless the owner empties the list.
    """

    ports: tuple[int, ...] = ()
    ports_denied: tuple[int, ...] = (25, 465, 587)
    networks_denied: tuple[str, ...] = ()
    """CIDR."""
    domains_denied: tuple[str, ...] = ()
    """With everything below them."""
    bytes_per_s_max: int = 0
    """Of reserve traffic; the owner's own is never slowed."""
    reserve: bool = True
    """Whether others may use this core at all."""
    reserve_bytes: int = RESERVE_BYTES_DEFAULT
    """What others may use in a month; cut at that byte."""
    monthly_bytes: int = 0
    """Everybody together, the owner included."""


class Core(msgspec.Struct, frozen=True):
    """A core as the choice of core sees it. `load` is between 0 and 1."""

    name: str
    node: NodeId
    cell: CellId
    region: str
    owner: str
    addresses: tuple[str, ...]
    policy: ExitPolicy = ExitPolicy()
    draining: bool = False
    load: float = 0.0
    reserve_used: int = 0
    """Bytes of others this month."""
    total_used: int = 0


class Member(msgspec.Struct, frozen=True):
    """A person in the registry. `id` is random; no name of theirs stands here (issue: who is who).

    `owner` is the name under which their machines joined; empty for members without any.
    `contact` is an HMAC of a messenger id, or empty.
    """

    id: str
    standing: Standing = Standing.ACTIVE
    owner: str = ""
    quota_bytes: int = 0
    expires_at: int = 0
    devices_max: int = 5
    contact: bytes = b""
    created_at: float = 0.0


class Device(msgspec.Struct, frozen=True):
    """One installed client. `credential` is the VLESS id (UUID text)."""

    id: DeviceId
    member: str
    credential: str
    cell: CellId
    token_hash: bytes
    """BLAKE3 of the subscription token; the token itself is nowhere."""
    standing: Standing = Standing.ACTIVE
    created_at: float = 0.0
    fetched_at: float = 0.0
    """When it last got its subscription; 0 for never."""
    label: str = ""
    client: bytes = b""
    """Hash of the first client's own id (`x-hwid`), once one was given: others are turned away."""


def uuid4_of(random: bytes) -> str:
    """16 random bytes as a version 4 UUID (RFC 9562): the form clients ask of a credential."""
    assert len(random) == 16
    data = bytearray(random)
    data[6], data[8] = data[6] & 0x0F | 0x40, data[8] & 0x3F | 0x80
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def lane_of(member: Member) -> str:
    """The lane of a member's devices."""
    return member.owner or SHARED_LANE


def check_label(text: str) -> str:
    """Raises UsageError unless `text` can name a cell."""
    if not LABEL.fullmatch(text):
        raise UsageError(f"cell {text!r}: lower-case letters, digits, dashes; at most 32")
    return text


def check_domain(text: str) -> str:
    """Raises UsageError unless `text` is a host name in lower case."""
    if not DOMAIN.fullmatch(text):
        raise UsageError(f"{text!r} is no domain; write it in lower case, as in edge.example.net")
    return text


def check_policy(policy: ExitPolicy) -> ExitPolicy:
    """Raises UsageError for ports, networks, domains or amounts that cannot be."""
    if len(policy.networks_denied) + len(policy.domains_denied) > POLICY_RULES_MAX:
        raise UsageError(f"at most {POLICY_RULES_MAX} networks and domains together")
    for port in (*policy.ports, *policy.ports_denied):
        if not 0 < port < 65_536:
            raise UsageError(f"{port} is no port")
    for text in policy.networks_denied:
        _network(text)
    for domain in policy.domains_denied:
        check_domain(domain)
    if min(policy.bytes_per_s_max, policy.reserve_bytes, policy.monthly_bytes) < 0:
        raise UsageError("amounts are not negative; 0 means no limit")
    return policy


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no network; write it as 198.51.100.0/24") from error
