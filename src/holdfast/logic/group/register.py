"""Versions of keys: the part that folders, keyrings and later rooms share.

Every change to a key is a *version*, named (operation id, index). It lists the versions of that key
it *replaces*. The *live* versions are those that no version of the same key replaces; more than one
is a conflict, and what a conflict means is the reducer's business.

Why the outcome cannot depend on order: the set of versions and the set of replaced names are both
plain unions over operations; live is their difference. An operation folds whole and once; a
replacement that arrives before its victim is remembered until the victim's operation comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from holdfast.logic.group.operation import OperationId, VersionId

E = TypeVar("E")

Put = tuple[bytes, int, Iterable[VersionId], E]
"""(key, index of the entry, versions of that key it replaces, value)."""


class Register(Generic[E]):
    """A multi-value register for each key."""

    def __init__(self) -> None:
        self._live: dict[bytes, dict[VersionId, E]] = {}
        self._folded: set[OperationId] = set()
        self._early: dict[OperationId, set[tuple[bytes, int]]] = {}

    def fold(self, operation: OperationId, puts: Iterable[Put[E]]) -> None:
        """Fold all entries of one operation. A second time changes nothing."""
        if operation in self._folded:
            return
        self._folded.add(operation)
        early = self._early.pop(operation, ())
        for key, index, replaces, value in puts:
            versions = self._live.get(key)
            if versions is None:
                versions = self._live[key] = {}
            for version in replaces:
                if versions.pop(version, None) is None and version[0] not in self._folded:
                    self._early.setdefault(version[0], set()).add((key, version[1]))
            if (key, index) not in early:
                versions[(operation, index)] = value
            if not versions:
                del self._live[key]

    def live(self, key: bytes) -> dict[VersionId, E]:
        """Live versions of `key`; empty when nobody ever wrote it. Not to be changed."""
        return self._live.get(key, {})

    def __iter__(self) -> Iterator[tuple[bytes, dict[VersionId, E]]]:
        return iter(self._live.items())

    def __len__(self) -> int:
        return len(self._live)
