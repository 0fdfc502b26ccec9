"""Groups whose people add, remove and rekey at the same time, on replicas that rarely talk.

One *story* is a few devices, each with its own copy of a group's log. They act on what they know
and hear from each other now and then, so adds, removals and rekeys meet concurrently, mutual
removals and rings among them. Then the same operations are delivered in many random orders, each to
a fresh state: every one must end in the same state.

Secrets are played by names: an era's secret is its tag, and whoever a rekey is sealed to has it.
What is checked is who could open what: whoever an operation's author knew to be out must not hold
the era it was written in.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.group.authority import Level
from holdfast.logic.group.members import (
    Added,
    Entry,
    Genesis,
    MemberEntries,
    Rekey,
    Removed,
)
from holdfast.logic.group.operation import (
    Kind,
    Operation,
    OperationId,
    decode_entries,
    encode_entries,
    group_id,
    operation_id,
)
from holdfast.logic.group.reducer import GroupState
from holdfast.rim.entropy import Dice

Named = tuple[OperationId, Operation]
_NONCE = bytes(32)
_LEVELS = (Level.READER, Level.WRITER, Level.MANAGER, Level.MANAGER)
NOTHING = bytes((0x81,)) + b"\xa7entries\x90"
"""Entries of a keyring operation that says nothing: content, for membership's purposes."""


def key(number: int) -> bytes:
    """A made-up key."""
    return hash_bytes(b"member %d" % number)


class Replica:
    """One device's copy of the log."""

    def __init__(self, me: bytes, group: bytes) -> None:
        self.me = me
        self.group = group
        self.known: dict[OperationId, Operation] = {}
        self.state = GroupState(group)

    def hear(self, operations: Sequence[Named]) -> None:
        """Take what another replica has."""
        for operation, body in operations:
            self.take(operation, body)

    def take(self, operation: OperationId, body: Operation) -> None:
        """One operation, as `device.log` does it."""
        self.known[operation] = body
        self.state.add(operation, body)
        if self.state.stale:
            self.state = GroupState.load(self.group, self.known.items())

    def write(self, kind: Kind, entries: bytes) -> OperationId:
        """Sign, so to speak, and take."""
        n = self.state.next_n(self.me)
        body = Operation(self.group, self.me, self.state.dag.parents(), kind, 1, entries, n)
        name = operation_id(encode_entries(body), self.me, bytes(64))
        self.take(name, body)
        return name

    def lie(self, entries: bytes) -> None:
        """Sign two operations as one's n-th, for whoever hears which."""
        parents, n = self.state.dag.parents(), self.state.next_n(self.me)
        for half in (parents[:1], parents[-1:]):
            for version in (1, 2):
                body = Operation(self.group, self.me, half, Kind.KEYRING, version, entries, n)
                self.take(operation_id(encode_entries(body), self.me, bytes(64)), body)

    def claim(self, *entries: Entry) -> OperationId:
        """Write a membership operation."""
        return self.write(Kind.MEMBER, encode_entries(MemberEntries(entries)))

    def rekey(self, before: bytes) -> Rekey:
        """A new era for everybody who is in, as this replica knows it."""
        number = self.state.eras.next_number()
        tag = hash_bytes(self.me + repr((number, sorted(self.known))).encode())
        readers = tuple((member.device, b"") for member in self.state.members.all())
        return Rekey(number, tag, before, b"", readers)


class Sent(msgspec.Struct, frozen=True):
    """Something written after its author knew of removals."""

    operation: OperationId
    tag: bytes
    out: frozenset[bytes]
    """Keys the author knew to be out."""


class Story:
    """A history of one group. Same seed, same story."""

    def __init__(self, seed: int, people: int = 6, steps: int = 14) -> None:
        self._dice = Dice(seed)
        self.keys = [key(n) for n in range(people)]
        founder = self.keys[0]
        self.group = group_id(founder, _NONCE)
        self.replicas = {k: Replica(k, self.group) for k in self.keys}
        self.sent: list[Sent] = []
        first = self.replicas[founder]
        person = b""
        first.write(Kind.GENESIS, encode_entries(Genesis(_NONCE, "founder", person=person)))
        first.claim(*(Added(k, "", level=Level.MANAGER) for k in self.keys[1:4]))
        for replica in self.replicas.values():
            replica.hear(list(first.known.items()))
        for _ in range(steps):
            self._step()
        self.operations = self._all()

    def _all(self) -> list[Named]:
        known: dict[OperationId, Operation] = {}
        for replica in self.replicas.values():
            known |= replica.known
        return sorted(known.items())

    def _step(self) -> None:
        replica = self.replicas[self._dice.choice(self.keys)]
        act = self._dice.random()
        if act < 0.30:
            self._meet(replica)
        elif act < 0.45:
            target = self._dice.choice(self.keys)
            replica.claim(Removed(target), *self._fresh(replica, target))
        elif act < 0.60:
            target, level = self._dice.choice(self.keys), self._dice.choice(_LEVELS)
            replica.claim(Added(target, "", level=level))
        elif act < 0.65:
            replica.claim(replica.rekey(self._tag(replica)))
        elif act < 0.68:
            self._ring()
        elif act < 0.72:
            replica.lie(NOTHING)
        else:
            self._send(replica)

    def _ring(self) -> None:
        """Three remove each other at the same time."""
        ring = [self.replicas[k] for k in self._dice.sample(self.keys[:4], 3)]
        for one in ring:
            for other in ring:
                one.hear(list(other.known.items()))
        for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
            one.claim(Removed(other.me), *self._fresh(one, other.me))

    def _meet(self, replica: Replica) -> None:
        other = self.replicas[self._dice.choice(self.keys)]
        replica.hear(list(other.known.items()))

    def _fresh(self, replica: Replica, target: bytes) -> tuple[Rekey, ...]:
        """Every removal starts a new era; now and then its author is cut off before it does."""
        if self._dice.random() < 0.2:
            return ()
        rekey = replica.rekey(self._tag(replica))
        sealed = tuple(pair for pair in rekey.sealed if pair[0] != target)
        return (msgspec.structs.replace(rekey, sealed=sealed),)

    def _tag(self, replica: Replica) -> bytes:
        current = replica.state.eras.current
        return current.rekey.tag if current else b"0" * 32

    def _send(self, replica: Replica) -> None:
        """Write content, by the rules: in the current era, after a rekey where one is needed."""
        state = replica.state
        member = state.members.get(replica.me)
        if member is None or member.level < Level.WRITER:
            return
        if state.eras.rekey_needed:
            replica.claim(replica.rekey(self._tag(replica)))
        tag = self._tag(replica)
        out = frozenset(
            claim.target
            for claim in replica.state.eras.removals
            if claim.target not in replica.state.members
        )
        name = replica.write(Kind.KEYRING, NOTHING)
        self.sent.append(Sent(name, tag, out))

    # --- what must hold ------------------------------------------------------------------------
    def readers(self) -> dict[bytes, frozenset[bytes]]:
        """Who holds which era, by tag."""
        found: dict[bytes, frozenset[bytes]] = {b"0" * 32: frozenset(self.keys)}
        for _, body in self.operations:
            if body.kind == Kind.MEMBER:
                for entry in decode_entries(MemberEntries, body.entries).entries:
                    if isinstance(entry, Rekey):
                        found[entry.tag] = frozenset(reader for reader, _ in entry.sealed)
        return found

    def leaks(self) -> int:
        """Operations that somebody could open whom their author knew to be out."""
        readers = self.readers()
        return sum(bool(readers[sent.tag] & sent.out) for sent in self.sent)

    def settled(self) -> bytes:
        """The state of all operations, delivered at once."""
        return GroupState.load(self.group, self.operations).digest()

    def delivered(self, order: Sequence[Named]) -> bytes:
        """The state after delivery in that order, one by one."""
        replica = Replica(bytes(32), self.group)
        replica.hear(order)
        return replica.state.digest()

    def shuffled(self) -> list[Named]:
        """The operations in another order."""
        return self._dice.sample(self.operations, len(self.operations))


class Tally(msgspec.Struct):
    """What a campaign found."""

    seed: int
    permutations: int = 0
    stories: int = 0
    operations: int = 0
    void: int = 0
    """Operations that do not count in the end."""
    removals: int = 0
    rekeys: int = 0
    rings: int = 0
    """Stories in which the tie-break was needed."""
    sent_after_removal: int = 0
    leaks: int = 0
    differing: int = 0
    forks: int = 0
    control_differing: int = 0
    """Orders that differ when the newest word wins instead: the check can fail."""

    @property
    def held(self) -> bool:
        """Whether every order gave the same state, and nobody read what they must not."""
        return self.differing == 0 and self.leaks == 0 and self.control_differing > 0


def campaign(permutations: int, seed: int, orders: int = 50) -> Tally:
    """Deliver `permutations` random orders, `orders` for each story."""
    tally = Tally(seed)
    while tally.permutations < permutations:
        story = Story(seed * 1_000_003 + tally.stories)
        tally.stories += 1
        _count(tally, story)
        expected = story.settled()
        naive = set()
        for _ in range(min(orders, permutations - tally.permutations)):
            order = story.shuffled()
            tally.permutations += 1
            tally.differing += story.delivered(order) != expected
            naive.add(newest_wins(order))
        tally.control_differing += len(naive) > 1
    return tally


def _count(tally: Tally, story: Story) -> None:
    state = GroupState.load(story.group, story.operations)
    tally.operations += len(story.operations)
    tally.void += len(state.waiting_operations())
    tally.removals += len(state.eras.removals)
    tally.rekeys += len(state.eras.begun)
    tally.rings += state.rings
    tally.sent_after_removal += sum(bool(sent.out) for sent in story.sent)
    tally.leaks += story.leaks()
    tally.forks += len(state.forks())


def newest_wins(order: Sequence[Named]) -> frozenset[bytes]:
    """The control: membership by order of arrival, as a server that nobody questions would."""
    members: set[bytes] = set()
    for _, body in order:
        if body.kind == Kind.GENESIS:
            members.add(body.author)
        elif body.kind == Kind.MEMBER:
            for entry in decode_entries(MemberEntries, body.entries).entries:
                if isinstance(entry, Added):
                    members.add(entry.device)
                elif isinstance(entry, Removed):
                    members.discard(entry.key)
    return frozenset(members)
