"""What a device's subscription says, before any client's format (seed 001).

A renderer gets one `SubscriptionView` and needs nothing else. A device that may not be served gets
a view without endpoints and a `state` that says why; how a client is made to obey that (an empty
list lets some keep their old servers) is the renderer's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.limits.access import SUBSCRIPTION_UPDATE_H
from holdfast.logic.access.model import (
    Cell,
    CellState,
    Device,
    Entry,
    Member,
    Standing,
    Transport,
)


class SubscriptionState(StrEnum):
    """Whether a device is served, and why not."""

    ACTIVE = "active"
    EXPIRED = "expired"
    OVER_QUOTA = "over-quota"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes a member's devices have sent and received, all told."""

    upload: int = 0
    download: int = 0

    @property
    def total(self) -> int:
        return self.upload + self.download


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server line of a client: VLESS in TLS, over `transport`.

    `host` is what is dialled (a name or an IP literal without brackets), `sni` what is sent.
    `path` is the gRPC service name without slashes, or the XHTTP path with both.
    """

    name: str
    """Unique within a view, short, printable: what a client's list shows."""
    host: str
    port: int
    sni: str
    transport: Transport
    path: str
    region: str
    cell: str
    fingerprint: str = "chrome"
    alpn: tuple[str, ...] = ("h2",)


class SubscriptionView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a client's configuration needs. Times are Unix seconds, volumes bytes, 0: no limit.

    `roots` is PEM that a client must trust for these endpoints; empty when their certificates come
    from a public authority. `digest` changes exactly when a client's configuration would.
    """

    title: str
    state: SubscriptionState
    credential: str
    """The VLESS id: UUID text."""
    endpoints: tuple[Endpoint, ...]
    usage: Usage
    quota_bytes: int
    expires_at: int
    update_h: int
    roots: str
    page_url: str
    support_url: str
    digest: str
    device: str = ""
    """The label its owner gave this device."""
    devices: int = 0
    devices_max: int = 0


class Face(msgspec.Struct, frozen=True):
    """What a network shows of itself in every subscription."""

    title: str
    roots: str = ""
    page_url: str = ""
    support_url: str = ""
    update_h: int = SUBSCRIPTION_UPDATE_H


def state_of(member: Member, device: Device, used: int, now: float) -> SubscriptionState:
    """Whether this device is served at `now`, after `used` bytes of its member."""
    if Standing.REVOKED in (member.standing, device.standing):
        return SubscriptionState.REVOKED
    if Standing.SUSPENDED in (member.standing, device.standing):
        return SubscriptionState.SUSPENDED
    if member.expires_at and now >= member.expires_at:
        return SubscriptionState.EXPIRED
    if member.quota_bytes and used >= member.quota_bytes:
        return SubscriptionState.OVER_QUOTA
    return SubscriptionState.ACTIVE


def endpoints_of(cell: Cell, entries: Sequence[Entry]) -> tuple[Endpoint, ...]:
    """The server lines of a cell: each entry that serves, by both transports, newest paths.

    gRPC first: every client of today speaks it. XHTTP is for those that do, and for networks that
    break long HTTP/2 streams.
    """
    if cell.state is not CellState.ACTIVE:
        return ()
    epoch = cell.newest()
    serving = [e for e in entries if e.cell == cell.id and not e.draining]
    # None alive: it is headquarters that hears nobody.
    serving = [e for e in serving if e.alive] or serving
    lines: list[Endpoint] = []
    for transport, path in (
        (Transport.GRPC, epoch.service_name()),
        (Transport.XHTTP, epoch.path()),
    ):
        number = 0
        for entry in sorted(serving, key=lambda entry: entry.name):
            for address in entry.addresses[:1]:
                host, port = _split(address)
                number += 1
                lines.append(
                    Endpoint(
                        name=f"{entry.region} {number} {transport.value}",
                        host=host,
                        port=port,
                        sni=cell.domain,
                        transport=transport,
                        path=path,
                        region=entry.region,
                        cell=cell.id,
                    )
                )
    return tuple(lines)


def view_of(
    *,
    face: Face,
    member: Member,
    device: Device,
    devices: int,
    cell: Cell,
    entries: Sequence[Entry],
    usage: Usage,
    now: float,
) -> SubscriptionView:
    """The subscription of `device` at `now`. `devices`: how many its member has."""
    state = state_of(member, device, usage.total, now)
    served = state is SubscriptionState.ACTIVE
    view = SubscriptionView(
        title=face.title,
        state=state,
        credential=device.credential if served else "",
        endpoints=endpoints_of(cell, entries) if served else (),
        usage=Usage(),
        quota_bytes=member.quota_bytes,
        expires_at=member.expires_at,
        update_h=face.update_h,
        roots=face.roots,
        page_url=face.page_url,
        support_url=face.support_url,
        digest="",
        device=device.label,
        devices=devices,
        devices_max=member.devices_max,
    )
    digest = hash_bytes(msgspec.msgpack.encode(view)).hex()[:32]
    return msgspec.structs.replace(view, digest=digest, usage=usage)


def _split(address: str) -> tuple[str, int]:
    """Host without brackets, and port, of an address that was checked when its node joined."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
