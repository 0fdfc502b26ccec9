"""The shape of a log: which operations are here, which are heads, which are missing.

A parent that nobody has delivered yet is *missing*. When every server has been asked in vain the
caller names it a *gap* (D18): it stays on record, no longer counts as missing, and is healed if it
turns up after all. Reducers do not wait for parents: their state does not depend on order. The
graph is for completeness ("is anything still to come?"), for the parents of new operations, and for
who knew of what when somebody is removed.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.limits import PARENTS_MAX
from holdfast.logic.group.operation import OperationId


class Dag:
    """Operations by id, and the edges between them."""

    def __init__(self) -> None:
        self._parents: dict[OperationId, tuple[OperationId, ...]] = {}
        self._heads: set[OperationId] = set()
        self._awaited: dict[OperationId, set[OperationId]] = {}
        self._gaps: set[OperationId] = set()
        self._pasts: dict[OperationId, frozenset[OperationId]] = {}
        self._futures: dict[OperationId, set[OperationId]] = {}

    def __contains__(self, operation: OperationId) -> bool:
        return operation in self._parents

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, operation: OperationId, parents: Iterable[OperationId]) -> bool:
        """Note an operation and its parents. False when it was here already."""
        if operation in self._parents:
            return False
        own = self._parents[operation] = tuple(parents)
        self._gaps.discard(operation)
        children = self._awaited.pop(operation, None)
        if children:
            self._pasts.clear()
            self._futures.clear()
        else:
            self._heads.add(operation)
            for first, future in self._futures.items():
                if first in own or not future.isdisjoint(own):
                    future.add(operation)
        for parent in own:
            assert parent != operation, "a hash cannot contain itself"
            self._heads.discard(parent)
            if parent not in self._parents:
                self._awaited.setdefault(parent, set()).add(operation)
        return True

    def awaits(self, operation: OperationId) -> bool:
        """Whether something here names `operation` as a parent, and it has not come."""
        return operation in self._awaited

    def before(self, one: OperationId, other: OperationId) -> bool:
        """Whether `one` is in the past of `other`, as far as the operations here tell."""
        return one in self.past(other)

    def past(self, operation: OperationId) -> frozenset[OperationId]:
        """Every ancestor that is here. Remembered: ask for few operations."""
        known = self._pasts.get(operation)
        if known is not None:
            return known
        found: set[OperationId] = set()
        queue = [operation]
        while queue:
            for parent in self._parents.get(queue.pop(), ()):
                if parent in found or parent not in self._parents:
                    continue
                found.add(parent)
                deeper = self._pasts.get(parent)
                if deeper is None:
                    queue.append(parent)
                else:
                    found |= deeper
        self._pasts[operation] = frozenset(found)
        return self._pasts[operation]

    def follows(self, operation: OperationId, first: OperationId) -> bool:
        """As `before(first, operation)`, remembered by `first`: for few of those."""
        future = self._futures.get(first)
        if future is None:
            future = self._futures[first] = self._future(first)
        return operation in future

    def _future(self, first: OperationId) -> set[OperationId]:
        children: dict[OperationId, list[OperationId]] = {}
        for operation, parents in self._parents.items():
            for parent in parents:
                children.setdefault(parent, []).append(operation)
        found: set[OperationId] = set()
        queue = [first] if first in self._parents else []
        while queue:
            for child in children.get(queue.pop(), ()):
                if child not in found:
                    found.add(child)
                    queue.append(child)
        return found

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
