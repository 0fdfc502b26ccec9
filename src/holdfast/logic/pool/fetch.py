"""Fetching blobs by id from whichever servers have them.

Every server that answers pulls work from one list, so the fast ones carry more. An id that a
server lacks, or sends with the wrong bytes, goes to the others; an id that none of them has is
*missing*, by name, and never waited for in silence. A server that fails hands its work back.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.limits import IDS_PER_REQUEST_MAX


class Fetch:
    """One fetch of `blobs` from `servers` (names, best first)."""

    def __init__(self, blobs: Iterable[bytes], servers: Iterable[str]) -> None:
        self._open = dict.fromkeys(blobs)
        self._servers = set(servers)
        self._tried: dict[bytes, set[str]] = {blob: set() for blob in self._open}
        self._flying: dict[str, dict[bytes, None]] = {name: {} for name in self._servers}
        self._done = 0

    def take(self, name: str, count_max: int) -> tuple[bytes, ...]:
        """Ids for `name` to fetch next; empty when there is nothing for it now."""
        if name not in self._servers:
            return ()
        count_max = min(count_max, IDS_PER_REQUEST_MAX)
        taken: list[bytes] = []
        for blob in self._open:
            if len(taken) == count_max:
                break
            if name not in self._tried[blob]:
                taken.append(blob)
        for blob in taken:
            del self._open[blob]
            self._flying[name][blob] = None
        return tuple(taken)

    def got(self, name: str, blob: bytes) -> bool:
        """`name` sent `blob` and its hash is right. False when it was not asked to."""
        if self._flying[name].pop(blob, blob) is not None:
            return False
        del self._tried[blob]
        self._done += 1
        return True

    def lacks(self, name: str, blob: bytes) -> None:
        """`name` does not have `blob`, or sent other bytes."""
        if self._flying[name].pop(blob, blob) is None:
            self._tried[blob].add(name)
            self._open[blob] = None

    def later(self, name: str, blobs: Iterable[bytes]) -> None:
        """`name` had no room for these in one reply: ask again, it or another."""
        for blob in blobs:
            if self._flying[name].pop(blob, blob) is None:
                self._open[blob] = None

    def failed(self, name: str) -> None:
        """`name` does not answer any more; its work goes to the others."""
        self._servers.discard(name)
        self.later(name, tuple(self._flying[name]))

    @property
    def missing(self) -> tuple[bytes, ...]:
        """What no server that answers has."""
        flying = {blob for work in self._flying.values() for blob in work}
        return tuple(
            blob
            for blob, tried in self._tried.items()
            if blob not in flying and self._servers <= tried
        )

    @property
    def over(self) -> bool:
        """Whether nothing more can be got: all is here, or missing."""
        return len(self.missing) == len(self._tried)

    @property
    def done(self) -> int:
        """How many came."""
        return self._done
