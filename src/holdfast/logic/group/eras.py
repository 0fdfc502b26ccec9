"""Which era a group writes in (D16), and which ones it reads.

Era 0 begins with the group. A `Rekey` begins another; it is *clean* when its author knew every
removal that holds, and sealed it to nobody who is out. Writers use the clean era with the highest
number, then the lowest operation id; when no era is clean, a rekey comes before the next word. So
nothing that is written after a removal became known can be opened by whoever was removed, though
parts of the group that had not heard of it still wrote in the old era, which stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.logic.group.authority import Claim
from holdfast.logic.group.dag import Dag
from holdfast.logic.group.members import Rekey
from holdfast.logic.group.operation import OperationId


class EraBegun(msgspec.Struct, frozen=True):
    """An accepted rekey: entry `index` of `operation`."""

    operation: OperationId
    index: int
    author: bytes
    rekey: Rekey

    @property
    def number(self) -> int:
        """Era number."""
        return self.rekey.number


class Eras:
    """The eras of a group; a snapshot."""

    def __init__(
        self,
        begun: Iterable[EraBegun] = (),
        removals: Iterable[Claim] = (),
        readers: Iterable[bytes] = (),
        dag: Dag | None = None,
    ) -> None:
        """`readers`: keys and persons that are in."""
        self.begun = tuple(sorted(begun, key=lambda e: (e.number, e.operation, e.index)))
        self.removals = tuple(removals)
        self._readers = frozenset(readers)
        self._dag = dag
        clean = [era for era in self.begun if self._is_clean(era)]
        top = max((era.number for era in clean), default=0)
        self.current: EraBegun | None = next((e for e in clean if e.number == top), None)
        """Where to write; None is era 0, if `rekey_needed` does not say otherwise."""
        self.rekey_needed = self.current is None and bool(self.removals)

    def next_number(self) -> int:
        """Number of the next era."""
        return max((era.number for era in self.begun), default=0) + 1

    def _is_clean(self, era: EraBegun) -> bool:
        assert self._dag is not None
        if not self._readers.issuperset(reader for reader, _ in era.rekey.sealed):
            return False
        return all(
            (removal.operation == era.operation and removal.entry < era.index)
            or self._dag.before(removal.operation, era.operation)
            for removal in self.removals
        )
