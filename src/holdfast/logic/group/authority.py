"""Who may speak in a group when people add and remove each other at the same time.

A *claim* says what one key may do from now on: a grant (reader, writer, manager) or a removal.
Every claim is accepted or void, and which it is depends on nothing but the set of operations known:
not on the order in which they came. The rules are p2panda's strong removal:

1. a removal, or a demotion, voids what its target claims *concurrently*, or later;
2. mutual removals both hold; what else the two claimed concurrently is void;
3. somebody removed may be added again; what was void stays void;
4. what leans on a void claim is void.

Claims are decided until nothing moves: one whose every attacker is void is accepted, one with an
accepted attacker is void. What is left is a ring (A removes B, B removes C, C removes A). There
Keyhive's tie-break decides: the claim whose author is nearest to the founder, then the lowest
operation id, is accepted; then the rules go on. Making more keys only makes an author's distance
greater.

Who may claim what:

| claim                                       | by                                                |
|---------------------------------------------|---------------------------------------------------|
| any grant, any removal                      | a manager                                         |
| a device of one's own person, up to the     | a key of that person                              |
| author's own level; removing one            |                                                   |
| leaving                                     | anybody                                           |
| removing a person's root                    | the root itself, or a manager of another person   |

Removing a person's root removes all keys of that person. Nothing here knows a secret: eras follow
from removals (`eras`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from holdfast.logic.group.dag import Dag
from holdfast.logic.group.operation import OperationId


class Level(IntEnum):
    """What a key may do; each includes the ones before it."""

    OUT = 0
    READER = 1
    """Reads, and says its own name."""
    WRITER = 2
    MANAGER = 3
    """Adds and removes others."""


LEVELS: Final = {level.name.lower(): level for level in Level if level}


class Claim(NamedTuple):
    """`author` says that `target`, a key of `person`, is at `level` from here on."""

    operation: OperationId
    entry: int
    author: bytes
    target: bytes
    level: Level
    person: bytes
    """Empty for a removal, and for a key of nobody."""


FAR: Final = 1 << 30
"""Distance of an author whom nobody led in."""


class Authority:
    """The verdict over one set of claims. `founder` is the key in the group's id."""

    def __init__(
        self, founder: bytes, person: bytes, genesis: OperationId, claims: Iterable[Claim], dag: Dag
    ) -> None:
        self._dag = dag
        self._before = dag.before
        origin = Claim(genesis, -1, founder, founder, Level.MANAGER, person)
        self._claims = sorted({origin, *claims}, key=lambda c: (c.operation, c.entry))
        self._verdict: dict[Claim, bool] = {origin: True}
        self._on: dict[bytes, list[Claim]] = {}
        for claim in self._claims:
            self._on.setdefault(claim.target, []).append(claim)
        self.rings = 0
        """How often the tie-break decided."""
        self._decide()
        self.accepted = tuple(c for c in self._claims if self._verdict[c])
        self.contested = len(self.accepted) < len(self._claims) or any(
            c.level < Level.MANAGER for c in self._claims
        )
        """Whether operations still to come could change a verdict."""

    # --- questions -----------------------------------------------------------------------------
    def level(self, key: bytes) -> Level:
        """What `key` may do now."""
        standing = [c.level for c in self._grants(key) if self._stands(c)]
        return max(standing, default=Level.OUT)

    def person(self, key: bytes) -> bytes:
        """Whose key it is; empty when it is nobody's or unknown."""
        persons = [c.person for c in self._grants(key) if self._stands(c)]
        persons = persons or [c.person for c in self._grants(key)]
        return max(persons, default=b"")

    def present(self) -> tuple[bytes, ...]:
        """Every key that is in, sorted."""
        return tuple(sorted(key for key in self._on if self.level(key)))

    def allows(self, author: bytes, operation: OperationId, need: Level, index: int = FAR) -> bool:
        """Whether what `author` wrote as `operation` counts, if it takes `need` to write it.

        Being led in later is enough, unless somebody put the author out: then it must have been
        written before the author's removal was, or after a new grant.
        """
        return any(
            grant.level >= need
            and not any(
                self._hits(lower, operation, index, need, decided=True)
                for lower in self._lowering(author, grant.person, need)
                if self._verdict[lower]
            )
            for grant in self._grants(author)
        )

    def removals(self) -> tuple[Claim, ...]:
        """Accepted removals."""
        return tuple(c for c in self.accepted if c.level == Level.OUT)

    # --- the decision --------------------------------------------------------------------------
    def _decide(self) -> None:
        pending = [c for c in self._claims if c not in self._verdict]
        while pending:
            rest = []
            for claim in pending:
                verdict = self._judge(claim)
                if verdict is None:
                    rest.append(claim)
                else:
                    self._verdict[claim] = verdict
            if len(rest) == len(pending):
                first = min((c for c in rest if self._led_in(c)), key=self._seniority)
                self._verdict[first] = True
                rest.remove(first)
                self.rings += 1
            pending = rest

    def _judge(self, claim: Claim) -> bool | None:
        """Accepted, void, or not decided yet."""
        undecided = False
        for support in self._on.get(claim.author, ()):
            verdict = self._by(claim, support)
            if verdict:
                return True
            undecided = undecided or verdict is None
        return None if undecided else False

    def _by(self, claim: Claim, support: Claim) -> bool | None:
        """The verdict on `claim` if its author stands on `support`."""
        if not support.level or not self._precedes(support, claim):
            return False
        if support.person == claim.target != claim.author and not claim.level:
            return False
        supported = self._verdict.get(support)
        if supported is False:
            return False
        need = self._need(claim, support)
        if need is None:
            return None
        if support.level < need:
            return False
        undecided = supported is None
        for lower in self._lowering(claim.author, support.person, need):
            if lower is claim or self._mutual(claim, lower):
                continue
            hit = self._hits(lower, claim.operation, claim.entry, need, decided=False)
            verdict = self._verdict.get(lower)
            if hit is False or verdict is False:
                continue
            if hit and verdict:
                return False
            undecided = True
        return None if undecided else True

    def _need(self, claim: Claim, support: Claim) -> Level | None:
        """The level it takes; None while that hangs on claims that are not decided."""
        if claim.target == claim.author and not claim.level:
            return Level.READER
        if claim.level:
            sibling = claim.person and claim.person == support.person
            return max(claim.level, Level.READER) if sibling else Level.MANAGER
        if support.level == Level.MANAGER or not support.person:
            return Level.MANAGER
        kin = [
            self._verdict.get(grant)
            for grant in self._on.get(claim.target, ())
            if grant.level and grant.person == support.person and self._precedes(grant, claim)
        ]
        if any(kin):
            return Level.READER
        return None if None in kin else Level.MANAGER

    def _hits(
        self, lower: Claim, operation: OperationId, index: int, need: Level, *, decided: bool
    ) -> bool | None:
        """Whether `lower`, if accepted, voids what stands at (operation, index): that is not in
        its past, and no later grant led the author back in. None while a grant is undecided."""
        if lower.operation == operation:
            if index < lower.entry:
                return False
        elif self._before(operation, lower.operation):
            return False
        undecided = False
        for grant in self._on[lower.target]:
            if grant.level < need or not self._precedes(lower, grant):
                continue
            if grant.operation == operation:
                if grant.entry >= index:
                    continue
            elif not self._dag.follows(operation, grant.operation):
                continue
            verdict = self._verdict.get(grant)
            if verdict:
                return False
            undecided = undecided or verdict is None
        assert not (decided and undecided), "asked before everything is decided"
        return None if undecided else True

    def _lowering(self, key: bytes, person: bytes, need: Level) -> Iterator[Claim]:
        """Claims that put `key` of `person` below `need`."""
        for target in {key, person} - {b""}:
            for claim in self._on.get(target, ()):
                if claim.level < need and (target == key or not claim.level):
                    yield claim

    def _mutual(self, one: Claim, other: Claim) -> bool:
        """Rule 2: two concurrent removals of each other's authors."""
        return (
            one.level == other.level == Level.OUT
            and one.target in self._names(other.author)
            and other.target in self._names(one.author)
            and not self._before(one.operation, other.operation)
            and not self._before(other.operation, one.operation)
        )

    def _names(self, key: bytes) -> set[bytes]:
        return {key, *(grant.person for grant in self._on.get(key, ()) if grant.level)}

    # --- the tie-break -------------------------------------------------------------------------
    def _led_in(self, claim: Claim) -> bool:
        return any(
            self._verdict.get(support) and self._precedes(support, claim)
            for support in self._on.get(claim.author, ())
            if support.level
        )

    def _seniority(self, claim: Claim) -> tuple[int, OperationId, int]:
        return (self._distance(claim), claim.operation, claim.entry)

    def _distance(self, claim: Claim) -> int:
        """Steps from the founder to the author, over accepted grants in the claim's past."""
        steps = {claim.author: 0}
        queue = [claim.author]
        while queue:
            key = queue.pop(0)
            for grant in self._on.get(key, ()):
                if not grant.level or not self._verdict.get(grant):
                    continue
                if not self._precedes(grant, claim):
                    continue
                if grant.entry == -1:
                    return steps[key]
                if grant.author not in steps:
                    steps[grant.author] = steps[key] + 1
                    queue.append(grant.author)
        return FAR

    # --- small words ---------------------------------------------------------------------------
    def _precedes(self, one: Claim, other: Claim) -> bool:
        if one.operation == other.operation:
            return one.entry < other.entry
        return self._before(one.operation, other.operation)

    def _grants(self, key: bytes) -> Iterator[Claim]:
        return (c for c in self._on.get(key, ()) if c.level and self._verdict[c])

    def _stands(self, grant: Claim) -> bool:
        """Whether no accepted claim has put its target lower since, or at the same time."""
        return not any(
            self._verdict[lower] and not self._precedes(lower, grant)
            for lower in self._lowering(grant.target, grant.person, grant.level)
        )
