"""Lying servers, and whether a client notices, names them rightly, and loses nothing.

Each trial is a group of two devices on one slot of six real servers. Both sync while everybody is
honest; then one or two servers begin to lie to this group; then both devices sync once more. Every
liar must be named by one of the two, with a word that fits the lie, and nobody else may be; the
second device must end with everything the first wrote. Whatever the servers receive is searched for
the plaintext.

The control of each kind turns off the one check that catches it, and the same lie must pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.crypto.blob import seal, unseal
from holdfast.crypto.era import Era
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, PeerFault
from holdfast.fabric import auditor, doubter, receipts, roster, session
from holdfast.fabric.findings import Finding
from holdfast.fabric.puller import Puller
from holdfast.fabric.slot import Slot
from holdfast.fabric.store import Store
from holdfast.logic.pool import cursors
from holdfast.logic.pool.fanout import Stage
from holdfast.logic.pool.lies import Lie
from holdfast.relay.desk import Desk
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Dice, Entropy
from holdfast.rim.store.port import Incoming
from holdfast.sim.drills import lies
from holdfast.sim.drills.lying import Ears, Liar, LyingDoor
from holdfast.sim.drills.slot_world import SlotWorld
from holdfast.wire.evidence import check_evidence, unpack_evidence
from holdfast.wire.pool import BlobClass

STORED_S: Final = 30.0
TRIAL_S: Final = 120.0
Off = tuple[Any, str, Any]
"""(where, name, what to put there): a check turned off."""


async def _nothing(*_: object, **__: object) -> None:
    """A check that checks nothing."""


def _unchecked(*_: object, **__: object) -> None:
    """A check that checks nothing."""


def _bodies_as_they_come(data: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


_NO_AUDIT: Final[tuple[Off, ...]] = ((auditor.Auditor, "audit", _nothing),)
_NO_ACCUSATION: Final[tuple[Off, ...]] = ((auditor.Auditor, "_accuse", _unchecked),)
_NO_STRANGERS: Final[tuple[Off, ...]] = ((auditor.Auditor, "strangers", _nothing),)
_NO_ORDER: Final[tuple[Off, ...]] = ((cursors, "in_order", lambda *_: True), *_NO_AUDIT)
_NO_NAMES: Final[tuple[Off, ...]] = ((roster.Roster, "_name_liar", _unchecked),)
_NO_HASH: Final[tuple[Off, ...]] = (
    (session, "_checked", lambda blob, body: bytes(body)),
    (session, "_cut", _bodies_as_they_come),
    *_NO_STRANGERS,
    *_NO_AUDIT,
)
_NO_RECEIPTS: Final[tuple[Off, ...]] = (
    (session, "verify_receipts", _unchecked),
    (receipts.ReceiptBook, "_contradiction", lambda *_: None),
    *_NO_AUDIT,
)


class Kind(msgspec.Struct, frozen=True):
    """A lie: who tells it, the words it may be called by (at least one of `named`), whether two
    servers may tell it at once, and what is turned off in its control."""

    name: str
    liar: type[Liar]
    named: frozenset[Lie]
    also: frozenset[Lie]
    off: tuple[Off, ...]
    pair: bool = True


def _kind(
    name: str,
    liar: type[Liar],
    named: Sequence[Lie],
    off: tuple[Off, ...],
    also: Sequence[Lie] = (),
    *,
    pair: bool = True,
) -> Kind:
    return Kind(name, liar, frozenset(named), frozenset(also), off, pair)


_SIGNED_LACK: Final = (Lie.DENIES, Lie.WITHHOLDS, Lie.ROLLS_BACK)
_HIDDEN_HEAD: Final = (Lie.FALSE_HEAD,)
"""Who hides the newest blob also claims a number it cannot show."""
KINDS: Final = (
    _kind("withholds", lies.Withholds, [Lie.WITHHOLDS], _NO_AUDIT, _HIDDEN_HEAD),
    _kind("drops", lies.Drops, [Lie.DENIES], _NO_AUDIT, _SIGNED_LACK + _HIDDEN_HEAD),
    _kind("drops-and-attests", lies.DropsAndAttests, [Lie.WITHHOLDS], _NO_AUDIT, _HIDDEN_HEAD),
    _kind("denies", lies.Denies, [Lie.DENIES], _NO_AUDIT, _SIGNED_LACK),
    _kind("rolls-back", lies.RollsBack, [Lie.ROLLS_BACK], _NO_AUDIT, _SIGNED_LACK),
    _kind("forks", lies.Forks, _SIGNED_LACK, _NO_AUDIT),
    _kind("loses", lies.Loses, [Lie.LOST], _NO_AUDIT),
    _kind("reorders", lies.Reorders, [Lie.ORDER], _NO_ORDER),
    _kind("replays", lies.Replays, [Lie.ORDER], _NO_ORDER),
    _kind(
        "swaps-groups",
        lies.SwapsGroups,
        [Lie.SWAPS_GROUPS],
        (*_NO_STRANGERS, *_NO_AUDIT),
        [Lie.WITHHOLDS],
    ),
    _kind("false-head", lies.FalseHead, [Lie.FALSE_HEAD], _NO_AUDIT),
    _kind(
        "false-health",
        lies.FalseHealth,
        [Lie.FALSE_HEALTH],
        ((doubter.Doubter, "doubt", _unchecked),),
        pair=False,
    ),
    _kind("corrupts", lies.Corrupts, [Lie.TAMPERED], _NO_HASH),
    _kind("swaps-bodies", lies.SwapsBodies, [Lie.TAMPERED], _NO_HASH),
    _kind("truncates", lies.Truncates, [Lie.TAMPERED, Lie.NONSENSE], _NO_HASH),
    _kind("babbles", lies.Babbles, [Lie.NONSENSE], _NO_NAMES),
    _kind("forges-receipts", lies.ForgesReceipts, [Lie.RECEIPT], _NO_RECEIPTS, pair=False),
    _kind(
        "doubles-receipts",
        lies.DoublesReceipts,
        [Lie.CONFLICT],
        ((receipts.ReceiptBook, "_contradiction", lambda *_: None), *_NO_AUDIT),
        [Lie.WITHHOLDS],
        pair=False,
    ),
    _kind("will-not-sign", lies.WillNotSign, [Lie.WILL_NOT_SIGN], _NO_ACCUSATION),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}


class Outcome(msgspec.Struct):
    """One trial. `named` are (server, lie) pairs; `missed` liars that nobody named, `wrong` names
    that fit no lie that was told."""

    kind: str
    seed: int
    control: bool = False
    told: int = 0
    named: list[tuple[str, str]] = []
    missed: list[str] = []
    wrong: list[tuple[str, str]] = []
    leaks: int = 0
    lost: int = 0
    """Payloads that the second device did not get."""
    proofs: int = 0
    trouble: str = ""

    @property
    def passed(self) -> bool:
        """Of a control: the lie was told and nobody said a word."""
        return self.told > 0 and not self.named and not self.trouble


class _Sink:
    """A log of payloads."""

    def __init__(self) -> None:
        self.payloads: set[bytes] = set()

    def take(self, blob: bytes, payload: bytes) -> None:
        if not payload.startswith(b"op "):
            raise PeerFault("no operation")
        self.payloads.add(payload)

    def missing(self) -> Sequence[bytes]:
        return ()

    def name_gap(self, operation: bytes) -> None:
        raise AssertionError("operations here have no parents")


class _Device:
    """One device of the group; `home` outlives its openings."""

    def __init__(self, world: SlotWorld, home: Path, clock: Clock, era: Era, sink: _Sink) -> None:
        self.store = Store(home, clock)
        self.slot = Slot(world.network(), world.locator(), self.store)
        self.sink = sink
        self.puller: Puller = self.slot.puller(era, sink)
        self.era = era

    async def close(self) -> None:
        await self.slot.close()
        self.store.close()


class Trial:
    """One group, two devices, one kind of lie."""

    def __init__(
        self, liars: Liars, kind: Kind, seed: int, home: Path, *, control: bool = False
    ) -> None:
        self._liars = liars
        self._world = liars.world
        self._clock = liars.clock
        self._kind = kind
        self._home = home
        self._dice = Dice(int.from_bytes(hash_bytes(f"{kind.name} {seed}".encode())[:8], "big"))
        self._era = self._world.era()
        self._secrets: list[bytes] = []
        self._bulk: dict[bytes, bytes] = {}
        self.outcome = Outcome(kind.name, seed, control)
        self._names = self._choose()
        self._told: dict[str, Liar] = {}

    def _choose(self) -> list[str]:
        """A relay, or two, or a replica."""
        draw = self._dice.random()
        names = list(self._world.relays)
        if self.outcome.control:
            return [self._dice.choice(names[:3])]
        if draw < 0.2:
            return [self._dice.choice(names[3:])]
        count = 2 if self._kind.pair and draw < 0.5 else 1
        first = self._dice.randrange(3)
        return [names[(first + n) % 3] for n in range(count)]

    async def run(self) -> Outcome:
        """Play it; what goes wrong is in the outcome."""
        ears = self._liars.ears
        before = ears.leaks
        try:
            async with self._clock.real_timeout(TRIAL_S):
                await self._play()
        except (HoldfastError, TimeoutError) as error:
            self.outcome.trouble = f"{type(error).__name__}: {error}"[:200]
        finally:
            for door in self._liars.doors.values():
                door.liars.pop(self._era.tag, None)
            ears.secrets.difference_update(self._secrets)
        self.outcome.leaks = ears.leaks - before
        self.outcome.told = sum(liar.told for liar in self._told.values())
        return self.outcome

    async def _play(self) -> None:
        first_sink, second_sink = _Sink(), _Sink()
        first = _Device(self._world, self._home / "1", self._clock, self._era, first_sink)
        await first.slot.open([self._era])
        try:
            await self._write(first, 2)
            await first.puller.read(everywhere=True)
            await self._second(second_sink)
            await self._begin()
            await self._write(first, self._dice.randrange(2, 4))
            await first.slot.uploader.doubter.settle()
            await first.puller.read(everywhere=True)
            for liar in self._told.values():
                liar.turn()
            found = await self._second(second_sink)
            self._judge([*first.store.findings.all(self._era.tag), *found], first)
            written = {s for s in self._secrets if s.startswith(b"op ")}
            self.outcome.lost += len(written - second_sink.payloads)
        finally:
            await first.close()

    # --- What devices do -------------------------------------------------------------------------
    async def _write(self, device: _Device, count: int) -> None:
        """Operations and a bulk blob; returns when they are stored and the others were shown."""
        slot, era = device.slot, self._era
        bulk = self._secret(b"bulk ") + self._dice.randbytes(self._dice.randrange(20_000))
        name = await slot.put(era, BlobClass.BULK, bulk)
        self._bulk[name] = bulk
        logs = [await slot.put(era, BlobClass.LOG, self._secret(b"op ")) for _ in range(count)]
        async with self._clock.real_timeout(STORED_S):
            await slot.uploader.reach(Stage.STORED)
        await self._signed_for(device, logs)
        await slot.show_receipts(era)
        async with self._clock.real_timeout(STORED_S):
            await slot.uploader.reach(Stage.STORED)

    async def _signed_for(self, device: _Device, blobs: Sequence[bytes]) -> None:
        """Wait a moment for the receipts of all six; those that refuse give none."""
        for _ in range(50):
            holders = device.store.receipts.holders
            if all(len(holders(blob)) == len(self._world.relays) for blob in blobs):
                return
            if self._told and _ > 10:
                return
            await self._clock.sleep_real(0.02)

    def _secret(self, prefix: bytes) -> bytes:
        """Plaintext that must reach no server; random, so that it is nowhere by chance."""
        secret = prefix + self._dice.randbytes(24)
        self._secrets.append(secret)
        self._liars.ears.secrets.add(secret)
        return secret

    async def _second(self, sink: _Sink) -> list[Finding]:
        """The second device comes, syncs, and goes; its findings."""
        device = _Device(self._world, self._home / "2", self._clock, self._era, sink)
        await device.slot.open([self._era])
        got: dict[bytes, bytes] = {}

        async def take(blob: bytes, body: bytes) -> None:
            try:
                got[blob] = unseal(self._era, BlobClass.BULK, body).payload
            except PeerFault:
                return

        try:
            await device.puller.read(everywhere=True)
            await device.slot.fetch(self._era, self._bulk, take)
            self.outcome.lost += sum(got.get(b) != body for b, body in self._bulk.items())
            self._count_proofs(device)
            return device.store.findings.all(self._era.tag)
        finally:
            await device.close()

    # --- What liars do ---------------------------------------------------------------------------
    async def _begin(self) -> None:
        """From now on it is lied to this group."""
        slot, tag = self._world.slot, self._era.tag
        for name in self._names:
            door = self._liars.doors[name]
            liar = self._kind.liar(door.desk, slot, tag, Dice(self._dice.randrange(1 << 60)))
            if isinstance(liar, lies.SwapsGroups):
                liar.foreign_body = self._liars.foreign_body
                liar.foreign = hash_bytes(liar.foreign_body)
            door.liars[tag] = self._told[name] = liar

    # --- Judging ---------------------------------------------------------------------------------
    def _judge(self, found: Sequence[Finding], first: _Device) -> None:
        outcome, kind = self.outcome, self._kind
        outcome.named = sorted({(f.name, str(f.lie)) for f in found})
        for name in self._names:
            if not any(f.name == name and f.lie in kind.named for f in found):
                outcome.missed.append(name)
        fitting = kind.named | kind.also
        outcome.wrong = sorted(
            {(f.name, str(f.lie)) for f in found if f.name not in self._names}
            | {(f.name, str(f.lie)) for f in found if f.lie not in fitting}
        )
        self._count_proofs(first)

    def _count_proofs(self, device: _Device) -> None:
        """Proofs must hold for whoever gets them, and accuse a liar."""
        nodes = {self._liars.doors[name].desk.node for name in self._names}
        for finding in device.store.findings.all(self._era.tag):
            data = device.store.findings.proof(finding.proof) if finding.proof else None
            if data is None:
                continue
            verdict = check_evidence(unpack_evidence(data))
            if verdict.node in nodes:
                self.outcome.proofs += 1
            else:
                self.outcome.wrong.append((finding.name, str(verdict.kind)))


class Liars:
    """A world in which trials are played, several at once."""

    def __init__(self, home: Path, clock: Clock, entropy: Entropy) -> None:
        self.clock = clock
        self.ears = Ears()
        self.doors: dict[str, LyingDoor] = {}
        self._home = home
        self._trials = 0
        self.world = SlotWorld(home / "world", clock, entropy, self._door)
        self.foreign_body = b""

    def _door(self, name: str) -> Callable[[Desk], LyingDoor]:
        def make(desk: Desk) -> LyingDoor:
            self.doors[name] = LyingDoor(desk, self.ears)
            return self.doors[name]

        return make

    async def start(self) -> None:
        """Start the servers; another group has a blob on each."""
        await self.world.start()
        foreign = self.world.era()
        born = int(self.clock.wall()) // 86_400
        self.foreign_body = seal(foreign, BlobClass.LOG, b"another group's", born)
        incoming = Incoming(hash_bytes(self.foreign_body), born, self.foreign_body)
        for door in self.doors.values():
            store = door.desk.store
            await store.push(self.world.slot, foreign.tag, BlobClass.LOG, [incoming])

    async def stop(self) -> None:
        """Stop the servers."""
        await self.world.stop()

    async def play(
        self, plan: Sequence[tuple[str, int]], at_once: int, done: Callable[[Outcome], None]
    ) -> None:
        """Trials of (kind, seed), `at_once` of them at any time."""
        gate = asyncio.Semaphore(at_once)

        async def one(name: str, seed: int) -> None:
            async with gate:
                done(await self._trial(BY_NAME[name], seed).run())

        await asyncio.gather(*(one(name, seed) for name, seed in plan))

    async def control(self, name: str, seed: int) -> Outcome:
        """One trial with the check turned off that would catch it."""
        kind = BY_NAME[name]
        with turned_off(kind.off):
            return await self._trial(kind, seed, control=True).run()

    def _trial(self, kind: Kind, seed: int, *, control: bool = False) -> Trial:
        self._trials += 1
        home = self._home / f"{self._trials}"
        return Trial(self, kind, seed, home, control=control)


@contextmanager
def turned_off(checks: Sequence[Off]) -> Iterator[None]:
    """Checks replaced by nothing, for a while, in this process."""
    with ExitStack() as stack:
        for where, name, put in checks:
            before = getattr(where, name)
            setattr(where, name, put)
            stack.callback(setattr, where, name, before)
        yield


class LiarsReport(msgspec.Struct):
    """The JSON of the drill. A trial is one group and one kind of lie."""

    seeds: int
    seed: int
    kinds: int = 0
    trials: int = 0
    lies_told: int = 0
    undetected: int = 0
    """Liars that nobody named."""
    misnamed: int = 0
    """Names that fit no lie that was told."""
    plaintext: int = 0
    lost: int = 0
    """Payloads that an honest device ended without."""
    silent: int = 0
    """Trials in which the liar got no word in: they show nothing."""
    controls: int = 0
    controls_passed: int = 0
    proofs: int = 0
    """Portable proofs that hold by themselves."""
    troubles: int = 0
    names: dict[str, dict[str, int]] = {}
    """Kind -> word -> how often a liar was called by it."""
    findings: tuple[str, ...] = ()
    """The first things that went wrong."""
    heard_mib: float = 0.0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Every liar named rightly, nothing lost, nothing leaked, and every control passed."""
        wrong = self.undetected + self.misnamed + self.plaintext + self.lost + self.troubles
        controls = self.controls == self.controls_passed == self.kinds
        return not wrong and not self.silent and controls and self.trials > 0

    def add(self, outcome: Outcome) -> None:
        """Count one trial in."""
        if outcome.control:
            self.controls += 1
            self.controls_passed += outcome.passed
            self._complain(not outcome.passed, "control", outcome)
            return
        self.trials += 1
        self.lies_told += outcome.told
        self.undetected += len(outcome.missed)
        self.misnamed += len(outcome.wrong)
        self.plaintext += outcome.leaks
        self.lost += outcome.lost
        self.silent += outcome.told == 0
        self.proofs += outcome.proofs
        self.troubles += bool(outcome.trouble)
        words = self.names.setdefault(outcome.kind, {})
        for _, word in outcome.named:
            words[word] = words.get(word, 0) + 1
        bad = outcome.missed or outcome.wrong or outcome.leaks or outcome.lost or outcome.trouble
        self._complain(bool(bad) or not outcome.told, "trial", outcome)

    def _complain(self, bad: bool, what: str, outcome: Outcome) -> None:
        if bad and len(self.findings) < 10:
            text = msgspec.json.encode(outcome).decode()
            self.findings = (*self.findings, f"{what}: {text}"[:600])
