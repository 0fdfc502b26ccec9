"""What an entry or a core does for callers of headquarters: it carries what it cannot read, and
keeps a sealed copy of the store (ADR 0044).

Served on a loopback port, to which the role's Envoy leads one path that only those can derive who
know the network's root; everybody else sees the cover site. Kept below `front/` in the node's
directory: the newest copies and what headquarters said of its front keys, both checked before they
are kept and again at start. With headquarters gone, both are still served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.limits import API_REPLY_BYTES_MAX, CLIENT_CONNECTIONS_MAX
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.limits.front import (
    COPIES_KEPT,
    EPOCHS_AHEAD_MAX,
    FRONT_ANSWER_BYTES_MAX,
    FRONT_AT_ONCE_MAX,
    FRONT_BODY_REAL_S,
    FRONT_CLOCK_S,
    FRONT_COPIES_AT_ONCE_MAX,
    FRONT_COPY_REAL_S,
    FRONT_HQ_REAL_S,
    FRONT_PERIOD_S,
    FRONT_REQUEST_BYTES_MAX,
    FRONT_RETRY_S,
    HQ_ADDRESSES_MAX,
    HQ_ADDRESSES_TOLD_MAX,
)
from holdfast.logic.trust.revocation import RevocationList, Revoked, matches
from holdfast.node.home import Home, Member
from holdfast.node.membership import connect, known_revocations
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, remove_file, write_file
from holdfast.rim.https import EXCEPTION_HANDLERS
from holdfast.rim.https_client import error_of
from holdfast.rim.loopback_server import LoopbackServer
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack, pack_json, unpack, unpack_json
from holdfast.wire.front import (
    ASK,
    COPY,
    COPY_HEAD,
    KEYS,
    MOVED,
    NO_HEADQUARTERS,
    CopyHead,
    FrontKeys,
    HqAddresses,
    StoreCopy,
    age_order,
)
from holdfast.wire.hq import Problem
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body
from holdfast.wire.staple import presented, verify_staple

T = TypeVar("T")
HOST: Final = "127.0.0.1"
_KEYS_FILE: Final = "keys.json"
_MOVED_FILE: Final = "hq-notice.msgpack"
_OCTETS: Final = "application/octet-stream"
_COPY_BYTES_MAX: Final = SNAPSHOT_BYTES_MAX + 4 * SIGNED_BYTES_MAX
_log = logging.getLogger("holdfast.node.front")


class Front:
    """`await start()`, then `run()` until cancelled, then `await stop()`."""

    def __init__(
        self,
        home: Home,
        member: Member,
        clock: Clock,
        entropy: Entropy,
        on_moved: Callable[[Member], None] = lambda _member: None,
        *,
        revocations: RevocationList | None = None,
    ) -> None:
        """`on_moved` is called when headquarters has said that it is elsewhere. `revocations` is
        the agent's list, which grows; by default what the node remembers."""
        self._revoked = known_revocations(home, member) if revocations is None else revocations
        self._home = home
        self._on_moved = on_moved
        self._member = member
        self._clock = clock
        self._entropy = entropy
        self._directory = home.directory / "front"
        self._hq = connect(home, member, clock, self._revoked)
        self._server = LoopbackServer(self._application(), connections_max=4 * FRONT_AT_ONCE_MAX)
        self._carrying = 0
        self._copying = 0
        self._keys = b""
        self._head: tuple[CopyHead, bytes] | None = None
        self._file: Path | None = None

    @property
    def port(self) -> int:
        """The loopback port, once started."""
        return int(self._server.address.rpartition(":")[2])

    @property
    def head(self) -> CopyHead | None:
        """Of the copy that is kept."""
        return self._head[0] if self._head is not None else None

    async def start(self) -> None:
        """Load what was kept, and serve. Raises OperationFault."""
        make_private_directory(self._directory)
        await asyncio.to_thread(self._load)
        await self._server.start(HOST, 0)

    async def run(self) -> None:
        """Look for newer keys and a newer copy, again and again."""
        while True:
            wait_s = FRONT_PERIOD_S
            try:
                await self.refresh()
            except HoldfastError as error:
                _log.info("%s", error)
                wait_s = FRONT_RETRY_S
            await self._clock.sleep(wait_s * self._entropy.uniform(0.5, 1.5))

    async def stop(self) -> None:
        """Close the port."""
        await self._server.stop()
        await self._hq.close()

    def reload(self) -> None:
        """The node has a new certificate."""
        self._hq.reload((self._home.chain_file, self._home.key_file), self._home.roots())

    async def exclude(self, fresh: tuple[Revoked, ...]) -> None:
        """These are out since just now: no connection to them, no copy by their word."""
        self._hq.cut(lambda peer: any(matches(fresh, each) for each in peer.certificates))
        await asyncio.to_thread(self._load)

    # --- What is kept ----------------------------------------------------------------------------
    async def refresh(self) -> None:
        """Once. Raises OperationFault, PeerFault."""
        status, data = await self._hq.exchange("GET", "/v1/front", b"")
        if status != 200:
            raise error_of(status, data)
        unpack_json(FrontKeys, data, bytes_max=API_REPLY_BYTES_MAX)
        if data != self._keys:
            await asyncio.to_thread(write_file, self._directory / _KEYS_FILE, data)
            self._keys = data
        held = self._head[0].digest.hex() if self._head is not None else ""
        status, data = await self._hq.exchange(
            "GET",
            f"/v1/copy?held={held}",
            b"",
            timeout_s=FRONT_COPY_REAL_S,
            bytes_max=_COPY_BYTES_MAX,
        )
        if status == 200:
            await asyncio.to_thread(self._keep, data)
        elif status != 204:
            raise error_of(status, data)

    def _keep(self, data: bytes) -> None:
        """A copy that headquarters gave. Raises PeerFault for one that is damaged or older."""
        head, staple = self._checked(data)
        if self._head is not None and age_order(head) <= age_order(self._head[0]):
            raise PeerFault("headquarters gives an older copy than we hold")
        path = self._directory / (
            f"copy-{head.epoch:06}-{head.revision:012}-{head.made_at:012}.bin"
        )
        write_file(path, data)
        self._head, self._file = (head, staple), path
        for old in self._copies()[:-COPIES_KEPT]:
            remove_file(old)

    def _load(self) -> None:
        self._keys = read_file(self._directory / _KEYS_FILE) or b""
        self._head = self._file = None
        for path in reversed(self._copies()):
            try:
                self._head, self._file = self._checked(read_file(path) or b""), path
                return
            except PeerFault as fault:
                _log.warning("%s: %s", path.name, fault)

    def _copies(self) -> Sequence[Path]:
        """Oldest first."""
        return sorted(self._directory.glob("copy-*.bin"))

    def _checked(self, data: bytes) -> tuple[CopyHead, bytes]:
        copy = unpack(StoreCopy, data, bytes_max=_COPY_BYTES_MAX)
        head = self._believe(copy.head, Type.STORE_COPY, CopyHead)
        if hash_bytes(copy.sealed) != head.digest:
            raise PeerFault("a copy of the store that is damaged", code="damaged")
        return head, pack(copy.head)

    def _believe(self, staple: Staple, kind: Type, shape: type[T]) -> T:
        """Raises PeerFault, also for the word of a headquarters that is out."""
        roots, now = self._home.roots(), self._clock.wall()
        return verify_staple(roots, staple, kind, shape, now, revocations=self._revoked)

    # --- What is served --------------------------------------------------------------------------
    def _application(self) -> Starlette:
        routes = [
            Route(KEYS, self._show_keys, methods=["GET"]),
            Route(ASK, self._ask, methods=["POST"]),
            Route(COPY_HEAD, self._show_head, methods=["GET"]),
            Route(COPY, self._show_copy, methods=["GET"]),
            Route(MOVED, self._follow, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)

    async def _show_keys(self, _request: Request) -> Response:
        if not self._keys:
            raise OperationFault("this node has not heard from headquarters yet")
        return Response(self._keys, media_type="application/json")

    async def _show_head(self, _request: Request) -> Response:
        if self._head is None:
            raise OperationFault("this node keeps no copy yet")
        return Response(self._head[1], media_type=_OCTETS)

    async def _show_copy(self, _request: Request) -> Response:
        if self._file is None:
            raise OperationFault("this node keeps no copy yet")
        if self._copying >= FRONT_COPIES_AT_ONCE_MAX:
            raise OperationFault("others fetch the copy just now; try again in a minute")
        return _Counted(self, self._file)

    async def _follow(self, request: Request) -> Response:
        """Headquarters was made anew elsewhere: dial it there, and where it was as the last."""
        staple = unpack(Staple, await self._body(request), bytes_max=SIGNED_BYTES_MAX)
        told = self._believe(staple, Type.HQ_ADDRESSES, HqAddresses)
        if (told.epoch, told.issued_at) <= self._followed():
            raise PeerFault("older than what this node follows", code="stale")
        if told.epoch > self._epoch() + EPOCHS_AHEAD_MAX:
            raise PeerFault("of a restore that nobody made", code="epoch")
        if told.issued_at > self._clock.wall() + FRONT_CLOCK_S:
            raise PeerFault("of a time to come", code="clock")
        if not 0 < len(told.addresses) <= HQ_ADDRESSES_TOLD_MAX:
            raise PeerFault("addresses that nobody could dial")
        for address in told.addresses:
            split_address(address)
        hq = _dialled(told.addresses, self._member.hq)
        self._member = msgspec.structs.replace(self._member, hq=hq)
        await asyncio.to_thread(self._home.save_member, self._member)
        await asyncio.to_thread(write_file, self._directory / _MOVED_FILE, pack(staple))
        _log.warning("headquarters is at %s now", ", ".join(told.addresses))
        self._hq.redirect(hq)
        self._on_moved(self._member)
        return Response(b"", 204)

    def _followed(self) -> tuple[int, int]:
        """(epoch, issued_at) of the last notice followed; of one by a headquarters that was thrown
        out since, or that cannot be read, none."""
        data = read_file(self._directory / _MOVED_FILE)
        if data is None:
            return 0, 0
        try:
            staple = unpack(Staple, data, bytes_max=SIGNED_BYTES_MAX)
            if self._revoked.find(presented(staple.proof)) is not None:
                return 0, 0
            told = decode_body(Type.HQ_ADDRESSES, HqAddresses, staple.signed)
        except PeerFault:
            return 0, 0
        return told.epoch, told.issued_at

    def _epoch(self) -> int:
        """The newest restore that this node knows of, but by notices: they would raise it."""
        return max(self._revoked.version.epoch, self.head.epoch if self.head is not None else 0)

    async def _ask(self, request: Request) -> Response:
        """Carry sealed bytes to whichever headquarters answers."""
        sealed = await self._body(request)
        if self._carrying >= FRONT_AT_ONCE_MAX:
            raise OperationFault("this node carries too many calls just now; try another one")
        self._carrying += 1
        try:
            status, data = await self._hq.exchange(
                "POST",
                "/v1/front",
                sealed,
                timeout_s=FRONT_HQ_REAL_S,
                bytes_max=FRONT_ANSWER_BYTES_MAX,
            )
        except OperationFault as fault:
            problem = Problem(NO_HEADQUARTERS, f"no headquarters answers this node: {fault}")
            return Response(pack_json(problem), 503, media_type="application/json")
        finally:
            self._carrying -= 1
        return Response(data, status, media_type=_OCTETS)

    async def _body(self, request: Request) -> bytes:
        """All of it, in time. Raises PeerFault."""
        try:
            async with self._clock.real_timeout(FRONT_BODY_REAL_S):
                return await _body(request)
        except TimeoutError as error:
            raise PeerFault("the call came too slowly", code="timeout") from error


class _Counted(FileResponse):
    """A copy on its way, counted while it is."""

    def __init__(self, front: Front, path: Path) -> None:
        super().__init__(path, media_type=_OCTETS)
        self._front = front

    async def __call__(self, *args: object) -> None:
        self._front._copying += 1
        try:
            await super().__call__(*args)  # type: ignore[arg-type]
        finally:
            self._front._copying -= 1


def _dialled(told: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    """The new places first. Where there is no room for all, the oldest of the old ones stay."""
    old = tuple(address for address in before if address not in told)
    new = tuple(dict.fromkeys(told))
    return (*new, *old[-(HQ_ADDRESSES_MAX - len(new)) :])


async def _body(request: Request) -> bytes:
    sealed = bytearray()
    async for piece in request.stream():
        sealed += piece
        if len(sealed) > FRONT_REQUEST_BYTES_MAX:
            raise PeerFault("that is no sealed call", code="too-large")
    return bytes(sealed)


assert CLIENT_CONNECTIONS_MAX < FRONT_AT_ONCE_MAX, "calls wait for a connection, not for memory"
