"""The state of one group: every operation that arrived, folded by what it is.

`GroupState.add` takes operations in any order, any number of times. Which claims of membership hold
is a function of the set of operations (`authority`); registers are differences of unions; so all
who know the same operations are in the same state.

    outcome        the operation is ...
    FOLDED         part of the state
    WAITING        by a key that is not in (yet, or any more): folded when somebody lets it in
    UPDATE_NEEDED  of a kind or version this program does not know: stored, not folded (D19)
    FAULTY         against the rules of its kind; stored, never folded, by nobody
    DUPLICATE      here already

A removal voids what its target wrote concurrently, and some of that may be folded already. Folders
cannot unfold: `stale` then says that the state must be made anew, by `GroupState.load`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits.people import CLAIMS_MAX
from holdfast.logic.group.authority import Authority, Claim, Level
from holdfast.logic.group.dag import Dag
from holdfast.logic.group.eras import EraBegun, Eras
from holdfast.logic.group.folder import FolderState, Tree
from holdfast.logic.group.friends import Friends
from holdfast.logic.group.keyring import Keyring
from holdfast.logic.group.members import (
    Added,
    Member,
    Members,
    Profile,
    Rekey,
    Stated,
    Wrapping,
    parse,
)
from holdfast.logic.group.operation import Kind, Operation, OperationId


class Outcome(StrEnum):
    """What became of an operation; the table is above."""

    FOLDED = "folded"
    WAITING = "waiting"
    UPDATE_NEEDED = "update-needed"
    FAULTY = "faulty"
    DUPLICATE = "duplicate"


Named = tuple[OperationId, Operation]
_MEMBERSHIP = (Kind.GENESIS, Kind.MEMBER)


class GroupState:
    """One group's log, folded. The caller has verified signature, author and group of what it
    adds (`operation.check_operation`)."""

    def __init__(self, group: bytes) -> None:
        assert len(group) == 32
        self.group = group
        self.dag = Dag()
        self.members = Members()
        self.eras = Eras()
        self.wraps: dict[bytes, bytes] = {}
        """Wrap key of each reader: a person, or a device of a keyring."""
        self._wrap_n: dict[bytes, int] = {}
        self.folder = FolderState()
        self.keyring = Keyring()
        self.friends = Friends()
        self.faults: dict[OperationId, str] = {}
        self.stale = False
        """Whether something folded is void now: begin anew with `load`."""
        self._stated: dict[OperationId, Stated] = {}
        self._claims: list[Claim] = []
        self._authority: Authority | None = None
        self._folded: dict[bytes, set[OperationId]] = {}
        self._waiting: dict[bytes, dict[OperationId, Operation]] = {}
        self._newer: dict[OperationId, tuple[str, int]] = {}
        self._counts: dict[tuple[bytes, int], set[OperationId]] = {}
        self._last: dict[bytes, int] = {}

    @classmethod
    def load(cls, group: bytes, operations: Iterable[Named]) -> GroupState:
        """The state of a set of operations, decided once."""
        state, rest = cls(group), []
        for operation, body in operations:
            if not state.dag.add(operation, body.parents):
                continue
            state._count(operation, body)
            if body.kind in _MEMBERSHIP and body.foldable():
                state._state(operation, body)
            else:
                rest.append((operation, body))
        state._decide()
        for operation, body in rest:
            state._place(operation, body)
        assert not state.stale
        return state

    def add(self, operation: OperationId, body: Operation) -> Outcome:
        """Fold one verified operation, and whatever waited for it."""
        assert body.group == self.group, "operations of another group are refused before this"
        fills = self.dag.awaits(operation)
        if not self.dag.add(operation, body.parents):
            return Outcome.DUPLICATE
        self._count(operation, body)
        if body.kind in _MEMBERSHIP and body.foldable():
            known = self._state(operation, body)
            self._decide()
            if not known:
                return Outcome.FAULTY
            return Outcome.FOLDED if self._speaks(operation, body) else Outcome.WAITING
        if fills and self._authority is not None and self._authority.contested:
            self._decide()
        return self._place(operation, body)

    # --- membership ----------------------------------------------------------------------------
    def _state(self, operation: OperationId, body: Operation) -> bool:
        """Note a membership operation; whether it keeps the rules."""
        try:
            stated = parse(self.group, operation, body)
            claims = list(stated.claims())
            if len(self._claims) + len(claims) > CLAIMS_MAX:
                raise PeerFault("group with too many grants and removals")
        except PeerFault as fault:
            self.faults[operation] = str(fault)
            return False
        self._stated[operation] = stated
        self._claims += claims
        return True

    def _decide(self) -> None:
        """Weigh all claims again; let in what waited, notice what is void."""
        genesis = min(
            (s for s in self._stated.values() if s.genesis), key=lambda s: s.operation, default=None
        )
        if genesis is None:
            return
        assert genesis.genesis is not None
        person, author = genesis.genesis.person, genesis.author
        self._authority = Authority(author, person, genesis.operation, self._claims, self.dag)
        self._settle(self._authority)
        for author, folded in self._folded.items():
            if not all(self._authority.allows(author, o, Level.WRITER) for o in folded):
                self.stale = True
        for author in list(self._waiting):
            held = self._waiting.pop(author)
            for operation, body in held.items():
                self._place(operation, body)

    def _settle(self, authority: Authority) -> None:
        """Names, wrap keys and eras under a new verdict."""
        names: dict[bytes, Member] = {}
        wraps: dict[bytes, tuple[tuple[int, OperationId, int], bytes]] = {}
        begun: list[EraBegun] = []
        accepted = {(claim.operation, claim.entry) for claim in authority.accepted}
        for operation, stated in self._stated.items():
            if stated.genesis:
                first = stated.genesis
                _name(names, stated.author, first.label, first.format, (0, operation, -1))
            for index, entry in enumerate(stated.entries):
                if isinstance(entry, Added):
                    if (operation, index) in accepted:
                        rank = (0, operation, index)
                        _name(names, entry.device, entry.label, entry.format, rank)
                elif not authority.allows(stated.author, operation, Level.READER, index):
                    continue
                elif isinstance(entry, Profile):
                    rank = (entry.n, operation, index)
                    _name(names, stated.author, entry.label, entry.format, rank)
                elif isinstance(entry, Wrapping):
                    if entry.reader in (stated.author, authority.person(stated.author)):
                        found = ((entry.n, operation, index), entry.public)
                        wraps[entry.reader] = max(found, wraps.get(entry.reader, found))
                elif isinstance(entry, Rekey) and authority.allows(
                    stated.author, operation, Level.WRITER, index
                ):
                    begun.append(EraBegun(operation, index, stated.author, entry))
        self.wraps = {reader: public for reader, (_, public) in sorted(wraps.items())}
        self._wrap_n = {reader: rank[0] for reader, (rank, _) in wraps.items()}
        self.members = Members(
            _placed(names.get(key), key, authority.level(key), authority.person(key))
            for key in authority.present()
        )
        readers = {*authority.present(), *self.members.persons()}
        self.eras = Eras(begun, authority.removals(), readers, self.dag)

    def _speaks(self, operation: OperationId, body: Operation) -> bool:
        """Whether any of a membership operation counts."""
        if body.kind == Kind.GENESIS or self._authority is None:
            return self._authority is not None
        return self._authority.allows(body.author, operation, Level.READER)

    # --- everything else -----------------------------------------------------------------------
    def _place(self, operation: OperationId, body: Operation) -> Outcome:
        """Fold, or keep until its author may speak."""
        authority = self._authority
        if authority is None or not authority.allows(body.author, operation, Level.WRITER):
            self._waiting.setdefault(body.author, {})[operation] = body
            return Outcome.WAITING
        self._folded.setdefault(body.author, set()).add(operation)
        if not body.foldable():
            self._newer[operation] = (body.kind, body.version)
            return Outcome.UPDATE_NEEDED
        try:
            if body.kind == Kind.FOLDER:
                self.folder.fold(operation, body.author, body.entries)
            elif body.kind == Kind.KEYRING:
                self.keyring.fold(operation, body.entries)
            else:
                assert body.kind == Kind.FRIENDS
                self.friends.fold(operation, body.entries)
        except PeerFault as fault:
            self.faults[operation] = str(fault)
            return Outcome.FAULTY
        return Outcome.FOLDED

    def _count(self, operation: OperationId, body: Operation) -> None:
        if body.n:
            self._counts.setdefault((body.author, body.n), set()).add(operation)
            self._last[body.author] = max(body.n, self._last.get(body.author, 0))

    # --- questions -----------------------------------------------------------------------------
    def tree(self) -> Tree:
        """The folder as every device shows it."""
        return self.folder.tree(self.members.label)

    def next_n(self, author: bytes) -> int:
        """`n` of the author's next operation."""
        return self._last.get(author, 0) + 1

    def rekeys(self) -> tuple[Rekey, ...]:
        """Every rekey that came, accepted or not."""
        return tuple(
            entry
            for stated in self._stated.values()
            for entry in stated.entries
            if isinstance(entry, Rekey)
        )

    def wrap_n(self, reader: bytes) -> int:
        """`n` of the newest `Wrapping` of a reader, 0 when there is none."""
        return self._wrap_n.get(reader, 0)

    def forks(self) -> tuple[tuple[bytes, int, tuple[OperationId, ...]], ...]:
        """Equivocation: (author, n, operations) where a device signed several as its n-th. Any two
        of them, as they travelled, prove it to anybody."""
        return tuple(
            (author, n, tuple(sorted(names)))
            for (author, n), names in sorted(self._counts.items())
            if len(names) > 1
        )

    def update_needed(self) -> tuple[tuple[str, int], ...]:
        """Kinds and versions that arrived and that only a newer program folds (D19)."""
        return tuple(sorted(set(self._newer.values())))

    def waiting(self) -> tuple[bytes, ...]:
        """Keys whose operations wait for somebody to let them in, or are void."""
        silent = [
            stated.author
            for operation, stated in self._stated.items()
            if self._authority is None
            or not self._authority.allows(stated.author, operation, Level.READER)
        ]
        return tuple(sorted({*self._waiting, *silent}))

    def waiting_operations(self) -> frozenset[OperationId]:
        """Operations that do not count, for now or for good."""
        silent = {
            operation
            for operation, stated in self._stated.items()
            if self._authority is None
            or not self._authority.allows(stated.author, operation, Level.READER)
        }
        return frozenset(silent.union(*self._waiting.values()))

    @property
    def rings(self) -> int:
        """How often the tie-break decided."""
        return self._authority.rings if self._authority else 0

    def folded(self) -> frozenset[OperationId]:
        """Every operation of content that counts."""
        return frozenset().union(*self._folded.values())

    def digest(self) -> bytes:
        """Equal for equal states, whatever the order of arrival."""
        rows = [(m.device, m.label, int(m.level), m.person) for m in self.members.all()]
        current = self.eras.current
        era = (current.operation, current.index) if current else None
        eras = [(e.operation, e.index) for e in self.eras.begun]
        parts = (rows, era, eras, self.eras.rekey_needed, sorted(self.folded()), self.forks())
        return hash_bytes(repr((parts, sorted(self.wraps.items()))).encode())


def _name(
    names: dict[bytes, Member],
    key: bytes,
    label: str,
    form: int,
    rank: tuple[int, OperationId, int],
) -> None:
    known = names.get(key)
    if known is None or known.rank < rank:
        names[key] = Member(key, label, form, rank)


def _placed(named: Member | None, key: bytes, level: Level, person: bytes) -> Member:
    if named is None:
        return Member(key, "", 1, (0, b"", 0), level, person)
    return Member(key, named.label, named.format, named.rank, level, person)
