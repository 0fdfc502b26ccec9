"""The shape of a log: which operations are here, which are heads, which are missing.

A parent that nobody has delivered yet is *missing*. When every server has been asked in vain the
caller names it a *gap* (D18): it stays on record, no longer counts as missing, and is healed if it
turns up after all. Reducers do not wait for parents: their state does not depend on order. The
graph is for completeness ("is anything still to come?") and for the parents of new operations.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.limits import PARENTS_MAX
from holdfast.logic.group.operation import OperationId


class Dag:
    """Operations by id, and the edges between them."""

    def __init__(self) -> None:
        self._known: set[OperationId] = set()
        self._heads: set[OperationId] = set()
        self._awaited: dict[OperationId, set[OperationId]] = {}
        self._gaps: set[OperationId] = set()

    def __contains__(self, operation: OperationId) -> bool:
        return operation in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, operation: OperationId, parents: Iterable[OperationId]) -> bool:
        """Note an operation and its parents. False when it was here already."""
        if operation in self._known:
            return False
        self._known.add(operation)
        self._gaps.discard(operation)
        children = self._awaited.pop(operation, None)
        if not children:
            self._heads.add(operation)
        for parent in parents:
            assert parent != operation, "a hash cannot contain itself"
            self._heads.discard(parent)
            if parent not in self._known:
                self._awaited.setdefault(parent, set()).add(operation)
        return True

    def parents(self) -> tuple[OperationId, ...]:
        """Parents for the next operation: the heads, sorted, at most `PARENTS_MAX` of them. What
        does not fit is a parent of the operation after that."""
        return tuple(sorted(self._heads)[:PARENTS_MAX])

    def heads(self) -> frozenset[OperationId]:
        """Operations that no known operation has as a parent."""
        return frozenset(self._heads)

    def missing(self) -> tuple[OperationId, ...]:
        """Parents that are not here and not given up on, sorted."""
        return tuple(sorted(self._awaited.keys() - self._gaps))

    def name_gap(self, operation: OperationId) -> None:
        """Give up on a missing parent: all servers were asked in vain."""
        assert operation in self._awaited, "only a missing parent can be a gap"
        self._gaps.add(operation)

    def gaps(self) -> tuple[OperationId, ...]:
        """Named gaps, sorted."""
        return tuple(sorted(self._gaps))
