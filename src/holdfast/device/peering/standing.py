"""Standing connections to one's own devices and to friends' (seed 003, "Node Discovery").

Opens and shuts ports and knocks at peers as the planner says, exchanges heartbeats with those that
are connected, and passes sealed letters on for those that cannot reach each other. Needs no server
and no name service; what it knows survives a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.crypto.keys import SigningKey
from holdfast.device.peering.acquaintance import Acquaintance
from holdfast.device.peering.letters import Peer
from holdfast.device.peering.links import Link
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits.peers import (
    BEAT_REPLY_S,
    BEAT_S,
    BEATS_MISSED_MAX,
    HOPS_MAX,
    HOSTS_MAX,
    LINK_FRAME_BYTES_MAX,
    MOVE_LOOK_S,
)
from holdfast.logic.peers.book import Entry, Sighting, skew
from holdfast.logic.peers.planner import Dial, Planner
from holdfast.logic.peers.windows import Terms, first_secret, knock, mark, opens_next
from holdfast.rim.addresses import interface_addresses
from holdfast.rim.clock import Clock
from holdfast.rim.device_tls import DeviceTls, Door, dial
from holdfast.rim.entropy import Entropy
from holdfast.rim.stream import Stream
from holdfast.wire.codec import pack, unpack
from holdfast.wire.peers import (
    BEAT,
    LETTER,
    NONCE_BYTES,
    RELAYED,
    Beat,
    BeatReply,
    Call,
    from_bytes,
    sign_presence,
    sign_sighting,
    to_bytes,
    verify_presence,
    verify_sighting,
)
from holdfast.wire.signed import Signed

_log = logging.getLogger(__name__)
Handler = Callable[[bytes, bytes], Awaitable[bytes]]
"""Answers (the asking device, body)."""
_FASTEST_S: Final = 0.01
"""Real seconds between two turns, however fast a drill runs."""


class Standing:
    """One device among its peers. `hosts` tells the machine's own addresses."""

    def __init__(
        self,
        key: SigningKey,
        path: Path,
        clock: Clock,
        entropy: Entropy,
        *,
        terms: Terms | None = None,
        hosts: Callable[[], Sequence[str]] = interface_addresses,
    ) -> None:
        self._key = key
        self._clock = clock
        self._entropy = entropy
        self._hosts = hosts
        self._kept = Acquaintance(path, entropy)
        terms = terms or Terms()
        self._pace = Terms().period_s / terms.period_s
        self.planner = Planner(self._kept.own, self._kept.book, terms, entropy.uniform)
        self.book = self._kept.book
        self.seen_as: set[str] = set()
        """Hosts at which peers say they see us."""
        self._links: dict[bytes, list[Link]] = {}
        self._sightings: dict[bytes, Signed] = {}
        self._verbs: dict[str, Handler] = {}
        self.met: Callable[[bytes], None] = lambda device: None
        """Called when a connection to a device stands."""
        self._tls = DeviceTls(key, clock, lambda device: self.book.get(device) is not None)
        self._door = Door(self._tls, self._right, self._arrived)
        self._dialling: set[tuple[bytes, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._looked_at = 0.0
        self._dirty = False

    # --- who -----------------------------------------------------------------------------------
    def register(self, verb: str, handler: Handler) -> None:
        """Answer this verb too."""
        assert verb not in self._verbs
        self._verbs[verb] = handler

    def pair(self, device: bytes, name: str, pairing: bytes, hosts: Sequence[str]) -> None:
        """Look for a device that was met in person, where it was. Raises UsageError when the book
        is full."""
        theirs, ours = first_secret(pairing, device), first_secret(pairing, self._key.public)
        entry = Entry(device, name, theirs, ours, met_host=hosts[0] if hosts else "")
        if not self.book.add(entry):
            raise UsageError("too many devices are known here; unpair one first")
        self._changed()

    def forget(self, device: bytes) -> None:
        """A device is no peer any more: it is cut off, and our windows move away from it. The
        others find us in the old windows until they have heard of the new ones; who is forgotten
        knows these too, and finds a door that does not open to it."""
        self.book.forget(device)
        for link in self._links.get(device, ()):
            link.close()
        for entry in self.book:
            entry.mine = entry.mine or self._kept.own
        self._kept.own = self.planner.own = self._entropy.bytes(32)
        self.planner.news(self._clock.wall())
        self._changed()

    def connected(self) -> tuple[bytes, ...]:
        """Peers with a standing connection."""
        return tuple(device for device, links in self._links.items() if links)

    def locals(self) -> dict[bytes, str]:
        """Our own host on the newest connection to each peer."""
        return {device: links[-1].local for device, links in self._links.items() if links}

    @property
    def ports(self) -> tuple[int, ...]:
        """What is open now."""
        return self._door.ports

    def opens_in(self) -> float:
        """Seconds until the next window of our own begins."""
        now = self._clock.wall()
        return opens_next(self._kept.own, now, self.planner.terms) - now

    # --- life ----------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                now = self._clock.wall()
                self._look(now)
                await self._turn(now)
                if self._dirty:
                    self._dirty = False
                    await asyncio.to_thread(self._kept.save)
                now = self._clock.wall()
                wait_s = min(self.planner.wakes_at(now) - now, MOVE_LOOK_S / self._pace)
                try:
                    async with self._clock.real_timeout(max(wait_s, _FASTEST_S)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                self._wake.clear()
        finally:
            await self._end()

    async def _end(self) -> None:
        for links in self._links.values():
            for link in links:
                link.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._door.close()
        self._kept.save()

    async def _turn(self, now: float) -> None:
        wanted = {opening.window.port for opening in self.planner.openings(now)}
        for port in set(self._door.ports) - wanted:
            self._door.shut(port)
        for port in wanted:
            try:
                await self._door.open(port)
            except OperationFault as fault:
                _log.info("a window stays shut: %s", fault)
        for one in self.planner.dials(now):
            for host in one.hosts:
                if (one.device, host) not in self._dialling:
                    self._dialling.add((one.device, host))
                    self._start(self._dial(one, host))
        for device in self.planner.beats(now):
            self._start(self._beat(device))

    def _look(self, now: float) -> None:
        """Whether our own addresses changed; connections from one that is gone are over."""
        if now < self._looked_at + MOVE_LOOK_S / self._pace:
            return
        self._looked_at = now
        hosts = tuple(self._hosts())[:HOSTS_MAX]
        if hosts == self._kept.hosts and self._kept.n:
            return
        self._kept.hosts = hosts
        self._kept.n = max(self._kept.n + 1, int(now))
        for links in self._links.values():
            for link in links:
                if link.local not in hosts:
                    link.close()
        self.planner.news(now)
        self._changed()

    def _changed(self) -> None:
        self._dirty = True
        self._wake.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- connections ---------------------------------------------------------------------------
    def _right(self, nonce: bytes) -> tuple[bytes, ...]:
        openings = self.planner.openings(self._clock.wall())
        return tuple(knock(o.secret, o.window.period, nonce) for o in openings)

    async def _dial(self, one: Dial, host: str) -> None:
        said = knock(one.secret, one.window.period, self._entropy.bytes(NONCE_BYTES))
        try:
            stream = await dial(host, one.window.port, said, self._tls, one.device)
        except (OperationFault, PeerFault) as fault:
            _log.debug("%s: %s", host, fault)
            return
        finally:
            self._dialling.discard((one.device, host))
        await self._stand(stream, one.device, dialled=True)

    async def _arrived(self, stream: Stream, device: bytes) -> None:
        await self._stand(stream, device, dialled=False)

    async def _stand(self, stream: Stream, device: bytes, *, dialled: bool) -> None:
        entry = self.book.get(device)
        if entry is None:
            stream.close()
            return
        link = Link(stream, device, self._clock, self._serve, dialled=dialled)
        self._links.setdefault(device, []).append(link)
        entry.met_host = link.host
        self.planner.connected(device, self._clock.wall())
        self._changed()
        self.met(device)
        silent_s = BEATS_MISSED_MAX * BEAT_S / self._pace + BEAT_REPLY_S
        try:
            await link.run(silent_s)
        finally:
            self._links[device].remove(link)
            if not self._links[device]:
                self.planner.lost(device)
            self._wake.set()

    # --- heartbeats ----------------------------------------------------------------------------
    async def _beat(self, device: bytes) -> None:
        for link in tuple(self._links.get(device, ())):
            asked = self._clock.wall()
            try:
                body = pack(self._told(link))
                data = await link.call(device, (self._key.public,), BEAT, body, BEAT_REPLY_S)
                reply = unpack(BeatReply, data, bytes_max=LINK_FRAME_BYTES_MAX)
                now = self._clock.wall()
                entry = self.book.get(device)
                if entry is not None:
                    entry.mine = b""
                    off = skew(asked, reply.received_at, reply.replied_at, now)
                    self.book.compared(device, now, off, (now - asked) / 2)
                self._hear(link, reply.beat)
            except HoldfastError as fault:
                _log.info("a peer is silent: %s", fault)
                link.close()

    def _told(self, link: Link) -> Beat:
        """What this peer may know: of itself, of us, of those it knows as well."""
        shared = [e for e in self.book if mark(e.secret) in link.marks and e.device != link.device]
        own = sign_presence(self._key, self._kept.n, self._kept.hosts)
        seen = [self._sightings[e.device] for e in shared if e.device in self._sightings]
        seen += [from_bytes(data) for e in shared for _, data in e.sightings.values()]
        return Beat(
            secret=self._kept.own,
            you="" if link.dialled else link.host,
            marks=tuple(mark(e.secret) for e in self.book),
            presences=(own, *(from_bytes(e.signed) for e in shared if e.signed)),
            sightings=tuple(seen),
        )

    def _hear(self, link: Link, beat: Beat) -> None:
        """Take what a peer told. Raises PeerFault for a false word, the rest is not believed."""
        entry = self.book.get(link.device)
        if entry is None:
            raise PeerFault("a device that nobody here has met", code="forbidden")
        if entry.secret != beat.secret:
            entry.secret = beat.secret
            self._dirty = True
        news = frozenset(beat.marks) != link.marks
        link.marks = frozenset(beat.marks)
        if beat.you and beat.you not in self._kept.hosts:
            self.seen_as.add(beat.you)
        for signed in beat.presences:
            news |= self.book.tell(verify_presence(signed), to_bytes(signed))
        for signed in beat.sightings:
            told = verify_sighting(signed)
            news |= self.book.saw(signed.signer, told, to_bytes(signed))
        news |= self._note(link, entry)
        if news:
            self.planner.news(self._clock.wall())
            self._changed()

    def _note(self, link: Link, entry: Entry) -> bool:
        """Sign where a peer came from, when that is not where it says it is."""
        said = () if entry.presence is None else entry.presence.hosts
        if link.dialled or link.host in said:
            self._sightings.pop(entry.device, None)
            return False
        sighting = Sighting(entry.device, max(0, entry.n), link.host)
        signed = sign_sighting(self._key, sighting)
        known = self._sightings.get(entry.device)
        self._sightings[entry.device] = signed
        return known is None or known.body != signed.body

    # --- calls ---------------------------------------------------------------------------------
    async def _serve(self, link: Link, call: Call) -> bytes:
        if call.to != self._key.public:
            return await self._pass_on(call)
        if call.verb == BEAT:
            received = self._clock.wall()
            self._hear(link, unpack(Beat, call.body, bytes_max=LINK_FRAME_BYTES_MAX))
            return pack(BeatReply(received, self._clock.wall(), self._told(link)))
        handler = self._verbs.get(call.verb)
        if handler is None or (len(call.path) > 1 and call.verb not in RELAYED):
            raise PeerFault(f"no verb called {call.verb[:40]!r}", code="verb")
        return await handler(call.path[0], call.body)

    async def _pass_on(self, call: Call) -> bytes:
        me = self._key.public
        if call.verb not in RELAYED or len(call.path) > HOPS_MAX or me in call.path:
            raise PeerFault("a call that is not passed on", code="forbidden")
        return await self._send(call.to, (*call.path, me), call.verb, call.body)

    async def call(self, device: bytes, verb: str, body: bytes) -> bytes:
        """Ask a device, over its own connection or, for sealed verbs, through others. Raises
        OperationFault when no way is known."""
        return await self._send(device, (self._key.public,), verb, body)

    async def _send(self, to: bytes, path: tuple[bytes, ...], verb: str, body: bytes) -> bytes:
        direct = self._links.get(to, [])
        if direct:
            return await direct[-1].call(to, path, verb, body)
        fault = OperationFault("no way to that device now; it is tried again in its next window")
        if verb not in RELAYED or len(path) > HOPS_MAX:
            raise fault
        for device, links in tuple(self._links.items()):
            if links and device not in path:
                try:
                    return await links[-1].call(to, path, verb, body)
                except OperationFault as error:
                    fault = error
        raise fault

    async def carry(self, peer: Peer, letter: bytes) -> bytes:
        """Take a sealed letter to a device and bring the answer: a `letters.Courier`."""
        return await self.call(peer.key, LETTER, letter)
