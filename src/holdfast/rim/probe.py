"""Looking at another server as its clients do, and at this machine: what `holdfast doctor` asks.

The key exchange of a link is read from the server's hello, on a connection made with the very
library and settings that clients use: what a library says it could do proves nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import ssl
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import msgspec

from holdfast.crypto.certificates import verify_chain
from holdfast.crypto.certinfo import cert_info
from holdfast.errors import OperationFault, PeerFault
from holdfast.rim.clock import Clock
from holdfast.rim.https_client import AN_HQ
from holdfast.rim.pool_client import _peer_chain, tls_context
from holdfast.rim.tls import ClientTls, connect
from holdfast.wire.address import split_address

PROBE_S: Final = 5.0
REPLY_BYTES_MAX: Final = 16 * 1024
GROUPS: Final = {
    0x001D: "X25519",
    0x0017: "P-256",
    0x0018: "P-384",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}
"""Names of the key exchanges of TLS 1.3 (IANA "TLS Supported Groups")."""
SYNC_ROUNDS: Final = 20
SYNC_S_MAX: Final = 2.0
"""A slow disk is known after this."""
_SERVER_HELLO: Final = 2
_KEY_SHARE: Final = 51
_ADJTIMEX_ERROR: Final = 5


class Seen(msgspec.Struct, frozen=True):
    """A server, looked at once. `at` is its wall clock in Unix seconds, None when it does not say;
    `took_s` is how long the answer took, half of which is the doubt about `at`."""

    address: str
    group: str
    node: bytes
    role: str
    version: str
    at: float | None
    not_after: int
    took_s: float
    verified: bool = True

    @property
    def post_quantum(self) -> bool:
        return "MLKEM" in self.group


class _Health(msgspec.Struct):
    """Of `GET /health`, what matters here."""

    version: str = ""
    at: float | None = None


async def look_at_server(address: str, roots: Sequence[bytes], clock: Clock) -> Seen:
    """A relay or replica, as clients see it. One whose certificate does not hold *now* is looked at
    all the same, unverified: our clock may be why. Raises OperationFault and PeerFault."""
    try:
        return await _look(address, roots, clock, verified=True)
    except PeerFault as fault:
        try:
            seen = await _look(address, roots, clock, verified=False)
        except (OperationFault, PeerFault):
            raise fault from None
        if seen.at is None or seen.at > seen.not_after:
            raise
        return seen


async def _look(address: str, roots: Sequence[bytes], clock: Clock, *, verified: bool) -> Seen:
    host, port = split_address(address)
    context = tls_context(tuple(roots))
    if not verified:
        context.verify_mode = ssl.CERT_NONE
    hello: list[int] = []
    context._msg_callback = _on_message(hello)  # type: ignore[attr-defined]
    writer: asyncio.StreamWriter | None = None
    try:
        async with clock.real_timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            chain = _peer_chain(writer.get_extra_info("ssl_object"))
            name = verify_chain(tuple(roots), chain, clock.wall()) if verified else None
            began = perf_counter()
            writer.write(f"GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            took_s = perf_counter() - began
    except ssl.SSLCertVerificationError as error:
        raise PeerFault(f"{address}: {error.verify_message}", code="certificate") from error
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise OperationFault(f"cannot reach {address}: {error or 'no answer'}") from error
    finally:
        if writer is not None:
            writer.transport.abort()
    info = cert_info(chain[0])
    known = name or info.name
    health = _health(body)
    return Seen(
        address=address,
        group=GROUPS.get(hello[-1], hex(hello[-1])) if hello else "unknown",
        node=known.node if known is not None else b"",
        role=known.role if known is not None else "",
        version=health.version,
        at=health.at,
        not_after=info.not_after,
        took_s=took_s,
        verified=verified,
    )


async def group_to_hq(address: str, tls: ClientTls, timeout_s: float = PROBE_S) -> str:
    """The key exchange with a headquarters. Raises OperationFault and PeerFault."""
    layer = await connect(asyncio.Protocol, address, tls, expected=AN_HQ, timeout_s=timeout_s)
    try:
        assert layer.transport is not None
        return layer.transport.get_extra_info("ssl_object").group() or "unknown"
    finally:
        layer.abort()


def _on_message(hello: list[int]) -> Any:
    """Notes the group of each server hello, the last of which counts."""

    def note(_c: Any, direction: str, _v: Any, _t: Any, kind: Any, data: bytes) -> None:
        if direction == "read" and int(kind) == _SERVER_HELLO and (found := _share(data)):
            hello.append(found)

    return note


def _share(message: bytes) -> int:
    """The group of a ServerHello's key share (RFC 8446 §4.1.3); 0 when it has none."""
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + 1 + 2
    while at + 4 <= len(message):
        kind, size = int.from_bytes(message[at : at + 2]), int.from_bytes(message[at + 2 : at + 4])
        if kind == _KEY_SHARE:
            return int.from_bytes(message[at + 4 : at + 6])
        at += 4 + size
    return 0


def _length(head: bytes) -> int:
    for line in head.decode("latin-1").lower().split("\r\n"):
        name, _, value = line.partition(":")
        if name == "content-length" and value.strip().isdigit():
            return min(int(value), REPLY_BYTES_MAX)
    raise OperationFault("an answer without a length")


def _health(body: bytes) -> _Health:
    try:
        return msgspec.json.decode(body, type=_Health)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerFault("its /health is no JSON of ours") from error


# --- This machine --------------------------------------------------------------------------------
class DiskTruth(msgspec.Struct, frozen=True):
    """A filesystem tried out: what it is, what is free, how long a synced write takes."""

    kind: str
    free_bytes: int
    total_bytes: int
    sync_p50_us: float
    sync_max_us: float
    fault: str = ""
    """Why a file could not be written and synced."""


def try_disk(directory: Path) -> DiskTruth:
    """Write and sync a few blocks in a file of `directory`, which is removed again."""
    room = os.statvfs(directory)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    path = directory / ".doctor.new"
    times: list[float] = []
    fault = ""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for _ in range(SYNC_ROUNDS):
                began = perf_counter()
                os.write(fd, bytes(4_096))
                os.fdatasync(fd)
                times.append((perf_counter() - began) * 1e6)
                if sum(times) > SYNC_S_MAX * 1e6:
                    break
        finally:
            os.close(fd)
            path.unlink()
    except OSError as error:
        fault = f"{error.strerror}"
    times.sort()
    return DiskTruth(
        kind=_filesystem(directory),
        free_bytes=free,
        total_bytes=total,
        sync_p50_us=round(times[len(times) // 2], 1) if times else 0.0,
        sync_max_us=round(times[-1], 1) if times else 0.0,
        fault=fault,
    )


def _filesystem(directory: Path) -> str:
    """Type of the filesystem that holds `directory`, from the mount with the longest path."""
    best, kind = -1, "unknown"
    here = os.path.realpath(directory)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) > best:
            best, kind = len(point), right.split()[0]
    return kind


def descriptors_of(pid: int) -> tuple[int, int]:
    """(open now, soft limit) of a process; for 0 of this one, which may still raise its own to the
    hard limit. Raises OSError."""
    if not pid:
        return len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return len(os.listdir(f"/proc/{pid}/fd")), int(line.split()[3])
    raise OSError(f"no limits of process {pid}")


def clock_is_kept() -> bool:
    """Whether something (NTP, a hypervisor) keeps this kernel's clock, as the kernel says."""
    timex = ctypes.create_string_buffer(512)
    return int(ctypes.CDLL(None).adjtimex(timex)) not in (-1, _ADJTIMEX_ERROR)
