"""Live data by the shortest way: from device to device, beside the pool (seed 003; DESIGN §5).

What this device writes is told at once to every connected device that is in the group: log blobs
whole, since they are small and wake the other side; bulk is fetched when a log blob asks for it.
Whoever connects anew, or misses something, asks for the log blobs that it has not. What is told and
fetched lies in the outbox, as long as the pool does not safely have it; afterwards the pool has it.

The blobs and ids are those that servers get, and nobody is asked for a group it is not in.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.device.group import Group
from holdfast.device.peering.exchange import Exchange
from holdfast.device.peering.letters import Peer
from holdfast.device.peering.peers import peers
from holdfast.device.peering.standing import Standing
from holdfast.device.runtime import DeviceRuntime
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.fabric.database import DiskFault
from holdfast.fabric.downloader import Taker
from holdfast.fabric.outbox import Outbox, Parcel
from holdfast.limits.peers import LINK_FRAME_BYTES_MAX
from holdfast.limits.people import VAULT_ANSWER_BYTES_MAX, VAULT_ASK_MAX
from holdfast.logic.peers.windows import Terms
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack, unpack
from holdfast.wire.peers import TOLD, Tagged
from holdfast.wire.pool import BlobClass

_log = logging.getLogger(__name__)
LOOK_S: Final = 5.0
"""Real seconds between looks at who is a peer and which slots are open."""
ASKED_AT_ONCE: Final = 3
"""Answers of 4 MiB that one fetch waits for at the same time."""
IDS_PER_GET: Final = 16
ANSWER_S: Final = 10.0
"""Real seconds for one question: servers could be asked meanwhile."""
SLOW_S: Final = 4.0
FETCH_BYTES_PER_S_MIN: Final = 262_144
"""Of one question that takes longer than `SLOW_S`: a slower device costs more than it gives."""
REST_S: Final = 60.0
RETRY_S: Final = 1.0
"""Real seconds until a device is told again."""
BOOK: Final = "peers.book"
Heard = Callable[[Group], None]
"""A group has something new, or something that was missing may be had now."""


def standing(runtime: DeviceRuntime, clock: Clock, entropy: Entropy) -> Standing:
    """The device among its peers, its windows as fast as its clock."""
    state = runtime.state
    terms = Terms().faster(clock.scale)
    return Standing(state.key, state.home / BOOK, clock, entropy, terms=terms)


class _Shelf:
    """The outbox as devices see it: they read, and put nothing."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def items(self, tag: bytes) -> Sequence[tuple[int, bytes]]:
        return self._outbox.items(tag)

    def read(self, tag: bytes, blob: bytes) -> bytes | None:
        held = self._outbox.held(blob)
        return self._outbox.body(blob) if held is not None and held.tag == tag else None

    def put(self, tag: bytes, blob_class: int, body: bytes) -> None:
        raise AssertionError("nothing is put into the outbox from outside")


class Direct:
    """The direct paths of an open device. `run` until cancelled."""

    def __init__(self, runtime: DeviceRuntime, at: Standing) -> None:
        self._runtime = runtime
        self._at = at
        self._exchange = Exchange(at, _Shelf(runtime.state.store.outbox), self._may)
        self._tasks: asyncio.TaskGroup | None = None
        self._news: dict[bytes, dict[bytes, dict[bytes, bytes]]] = {}
        """By device and tag: log blobs it is owed; none where it is to ask."""
        self._telling: set[bytes] = set()
        self._reading: set[bytes] = set()
        self._rests_until: dict[bytes, float] = {}
        self.heard: Heard = lambda group: None
        at.register(TOLD, self._told)
        at.met = lambda device: self._start(self._catch_up(device))

    async def run(self) -> None:
        """Keep connections to every peer, and tell and fetch over them."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._at.run())
                while True:
                    self._follow_book()
                    for slot in self._runtime.slots.values():
                        slot.nearby = self
                    await self._runtime.clock.sleep_real(LOOK_S)
        finally:
            self._tasks = None
            for slot in self._runtime.slots.values():
                slot.nearby = None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work)

    def _follow_book(self) -> None:
        """Look for every device that was met, and for nobody else."""
        known = {peer.key: peer for peer in peers(self._runtime)}
        for device, peer in known.items():
            entry = self._at.book.get(device)
            if entry is None:
                self._look_for(peer)
            elif not entry.contact_at:  # never reached: it may have moved before we met again
                entry.met_host = next(iter(self._hosts(peer)), entry.met_host)
        for entry in self._at.book:
            if entry.device not in known:
                self._at.forget(entry.device)

    def _look_for(self, peer: Peer) -> None:
        state, friends = self._runtime.state, self._runtime.keyring_log.state.friends
        friend = friends.get(peer.person)
        assert friend is not None, "peers are devices of friends, the own person included"
        own = peer.person == state.person
        secret = own_secret(state.keyring_secret) if own else friend.secret
        try:
            self._at.pair(peer.key, peer.name, secret, self._hosts(peer))
        except UsageError as fault:
            _log.warning("%s is not looked for: %s", peer.name, fault)

    def _hosts(self, peer: Peer) -> list[str]:
        """Where it was met, then where it said that it answers."""
        hosts = [self._runtime.state.host_of(peer.key)]
        for address in peer.addresses:
            try:
                hosts.append(split_address(address)[0])
            except PeerFault as fault:
                _log.info("%s: %s", peer.name, fault)
        return [host for host in hosts if host]

    def _may(self, device: bytes, tag: bytes) -> bool:
        return self._group(device, tag) is not None

    # --- who shares what -------------------------------------------------------------------------
    def _shared(self, device: bytes) -> Iterator[Group]:
        """The groups that a peer is in with this device, by its own key: a person's other devices
        may be in where this one was removed."""
        peer = next((peer for peer in peers(self._runtime) if peer.key == device), None)
        if peer is None:
            return
        if peer.person == self._runtime.state.person:
            yield self._runtime.keyring
        for group in self._runtime.groups.values():
            if device in group.log.state.members:
                yield group

    def _group(self, device: bytes, tag: bytes) -> Group | None:
        return next(
            (g for g in self._shared(device) if any(era.tag == tag for era in g.eras)), None
        )

    # --- log blobs -------------------------------------------------------------------------------
    def wrote(self, parcels: Sequence[Parcel]) -> None:
        """Tell whoever is connected and in the group."""
        for device in self._at.connected():
            for parcel in parcels:
                if parcel.blob_class == BlobClass.LOG and self._may(device, parcel.tag):
                    news = self._news.setdefault(device, {}).setdefault(parcel.tag, {})
                    news[parcel.blob] = parcel.body
                    if sum(map(len, news.values())) > VAULT_ANSWER_BYTES_MAX:
                        news.clear()  # too much to carry: it is asked for, as after an absence
            if device in self._news and device not in self._telling:
                self._telling.add(device)
                self._start(self._tell(device))

    async def _tell(self, device: bytes) -> None:
        """Tell a device what it is owed, until that is nothing or it is gone. What was told in vain
        once is not carried again: it is said that there is something to ask for."""
        try:
            while (owed := self._news.get(device)) and device in self._at.connected():
                tag, bodies = owed.popitem()
                told = Tagged(tag, (), tuple(bodies), tuple(bodies.values()))
                try:
                    await self._at.call(device, TOLD, pack(told))
                except OperationFault as fault:
                    _log.info("a device is not told: %s", fault)
                    owed.setdefault(tag, {})
                    await self._runtime.clock.sleep_real(RETRY_S)
                except PeerFault as fault:
                    _log.warning("a device will not be told: %s", fault)
        finally:
            self._telling.discard(device)
            self._news.pop(device, None)

    async def _told(self, device: bytes, body: bytes) -> bytes:
        told = unpack(Tagged, body, bytes_max=LINK_FRAME_BYTES_MAX)
        group = self._group(device, told.tag)
        if group is None:
            raise PeerFault("no group of ours", code="forbidden")
        bodies = dict(zip(told.ids, told.bodies, strict=False))
        if any(hash_bytes(body) != blob for blob, body in bodies.items()):
            raise PeerFault("a blob that is not what its id says", code="hash")
        if group.take_in(told.tag, bodies):
            self.heard(group)
        if not bodies or group.log.missing():
            self._start(self._catch_up(device))
        return b""

    async def _catch_up(self, device: bytes) -> None:
        """Take the log blobs that a device has and this one has not."""
        if device in self._reading:
            return
        self._reading.add(device)
        try:
            for group in list(self._shared(device)):
                for era in group.eras:
                    await self._read(device, group, era.tag)
                self.heard(group)
        except (OperationFault, PeerFault) as fault:
            _log.info("a device is not read: %s", fault)
        finally:
            self._reading.discard(device)

    async def _read(self, device: bytes, group: Group, tag: bytes) -> None:
        theirs = await self._exchange.have(device, tag)
        known = self._runtime.state.store.readings
        left = known.wanted(tag, (b for b, kind in theirs.items() if kind == BlobClass.LOG))
        while left:
            got = await self._exchange.get(device, tag, left[:VAULT_ASK_MAX])
            if not got:
                return
            group.take_in(tag, got)
            left = [blob for blob in left if blob not in got]

    # --- bulk ------------------------------------------------------------------------------------
    async def fetch(self, tag: bytes, blobs: Sequence[bytes], take: Taker) -> Sequence[bytes]:
        """Bodies from connected devices; what none of them has. One that fails, or is slower than
        `FETCH_BYTES_PER_S_MIN`, is left alone for a while: servers wait behind it."""
        left = list(blobs)
        clock = self._runtime.clock
        for device in self._at.connected():
            rested = clock.elapsed() / clock.scale >= self._rests_until.get(device, 0.0)
            if left and rested and self._may(device, tag):
                done: set[bytes] = set()
                try:
                    await self._fetch(device, tag, left, take, done)
                except DiskFault:
                    raise
                except (OperationFault, PeerFault) as fault:
                    _log.info("a device stops giving: %s", fault)
                    self._rests_until[device] = clock.elapsed() / clock.scale + REST_S
                left = [blob for blob in left if blob not in done]
        return left

    async def _fetch(
        self, device: bytes, tag: bytes, blobs: Sequence[bytes], take: Taker, done: set[bytes]
    ) -> None:
        """What one device has of `blobs`; `done` grows. Raises OperationFault, PeerFault."""
        clock = self._runtime.clock
        waiting: list[bytes] = []
        for start in range(0, len(blobs), VAULT_ASK_MAX):
            some = blobs[start : start + VAULT_ASK_MAX]
            async with _in_time(clock, ANSWER_S):
                theirs = await self._exchange.have(device, tag, some)
            waiting += [blob for blob in some if blob in theirs]
        waiting.reverse()  # taken from the end: in the order that was asked for

        async def ask() -> None:
            while waiting:
                ids = [waiting.pop() for _ in range(min(IDS_PER_GET, len(waiting)))]
                began = clock.elapsed()
                async with _in_time(clock, ANSWER_S):
                    got = await self._exchange.get(device, tag, ids)
                took_s = (clock.elapsed() - began) / clock.scale
                size = sum(map(len, got.values()))
                if took_s > SLOW_S and size < took_s * FETCH_BYTES_PER_S_MIN:
                    raise OperationFault("it is slower than a server would be")
                # The first, if it was not given, is left to servers: no question is asked for ever.
                waiting.extend(reversed([blob for blob in ids[1:] if blob not in got]))
                for blob, body in got.items():
                    await take(blob, body)
                    done.add(blob)

        asking = [asyncio.create_task(ask()) for _ in range(ASKED_AT_ONCE)]
        try:
            await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


@asynccontextmanager
async def _in_time(clock: Clock, real_s: float) -> AsyncIterator[None]:
    """Raises OperationFault when the block takes longer."""
    try:
        async with clock.real_timeout(real_s):
            yield
    except TimeoutError as error:
        raise OperationFault("it does not answer in time") from error


def own_secret(keyring_secret: bytes) -> bytes:
    """What stands in for a pairing secret between devices of one person, who never pair."""
    return derive_key("holdfast v1 own devices", keyring_secret)
