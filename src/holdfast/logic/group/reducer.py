"""The state of one group: every operation that arrived, folded by what it is.

`GroupState.add` takes operations in any order, any number of times, and ends in the same state:
membership is a least set, registers are differences of unions, and the verdict on an operation
depends on nothing but the operation and on whether its author is a member.

    outcome        the operation is ...
    FOLDED         part of the state
    WAITING        by a key that is no member yet; folded when somebody adds it
    UPDATE_NEEDED  of a kind or version this program does not know: stored, not folded (D19)
    FAULTY         against the rules of its kind; stored, never folded, by nobody
    DUPLICATE      here already
"""

from __future__ import annotations

from enum import StrEnum

from holdfast.errors import PeerFault
from holdfast.logic.group.dag import Dag
from holdfast.logic.group.folder import FolderState, Tree
from holdfast.logic.group.keyring import Keyring
from holdfast.logic.group.members import Members
from holdfast.logic.group.operation import Kind, Operation, OperationId


class Outcome(StrEnum):
    """What became of an operation; the table is above."""

    FOLDED = "folded"
    WAITING = "waiting"
    UPDATE_NEEDED = "update-needed"
    FAULTY = "faulty"
    DUPLICATE = "duplicate"


class GroupState:
    """One group's log, folded. The caller has verified signature, author and group of what it
    adds (`operation.check_operation`)."""

    def __init__(self, group: bytes) -> None:
        assert len(group) == 32
        self.group = group
        self.dag = Dag()
        self.members = Members(group)
        self.folder = FolderState()
        self.keyring = Keyring()
        self.faults: dict[OperationId, str] = {}
        self._waiting: dict[bytes, list[tuple[OperationId, Operation]]] = {}
        self._newer: dict[OperationId, tuple[str, int]] = {}

    def add(self, operation: OperationId, body: Operation) -> Outcome:
        """Fold one verified operation, and whatever waited for it."""
        assert body.group == self.group, "operations of another group are refused before this"
        if not self.dag.add(operation, body.parents):
            return Outcome.DUPLICATE
        if body.kind != Kind.GENESIS and body.author not in self.members:
            self._waiting.setdefault(body.author, []).append((operation, body))
            return Outcome.WAITING
        outcome, fresh = self._fold(operation, body)
        queue = list(fresh)
        while queue:
            for waiting, waiting_body in self._waiting.pop(queue.pop(), ()):
                queue += self._fold(waiting, waiting_body)[1]
        return outcome

    def _fold(self, operation: OperationId, body: Operation) -> tuple[Outcome, tuple[bytes, ...]]:
        """The outcome, and the devices that became members by it."""
        if not body.foldable():
            self._newer[operation] = (body.kind, body.version)
            return Outcome.UPDATE_NEEDED, ()
        fresh: tuple[bytes, ...] = ()
        try:
            if body.kind == Kind.FOLDER:
                self.folder.fold(operation, body.author, body.entries)
            elif body.kind == Kind.KEYRING:
                self.keyring.fold(operation, body.entries)
            else:
                fresh = self.members.fold(operation, body)
        except PeerFault as fault:
            self.faults[operation] = str(fault)
            return Outcome.FAULTY, ()
        return Outcome.FOLDED, fresh

    def tree(self) -> Tree:
        """The folder as every device shows it."""
        return self.folder.tree(self.members.label)

    def update_needed(self) -> tuple[tuple[str, int], ...]:
        """Kinds and versions that arrived and that only a newer program folds (D19)."""
        return tuple(sorted(set(self._newer.values())))

    def waiting(self) -> tuple[bytes, ...]:
        """Device keys whose operations wait for somebody to add them."""
        return tuple(sorted(self._waiting))
