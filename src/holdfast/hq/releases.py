"""Releases that this headquarters may hand out: statements in the store, archives on its disk.

A statement is believed when a release key that the root vouches for signed it; headquarters has
no such key. Archives lie in `releases/<id hex>.zip` of the directory of each headquarters, put
there by `holdfast hq release add`; one that lacks an archive says so, and nodes ask the next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.authority import Authority
from holdfast.hq.revocation import RevocationBook
from holdfast.limits.upgrade import RELEASES_MAX
from holdfast.logic.fleet.rollout_rows import RELEASES, ReleaseRow
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Put, absent
from holdfast.rim.files import make_private_directory, read_file, write_file
from holdfast.wire.codec import Message, pack, unpack
from holdfast.wire.records import Staple
from holdfast.wire.release import Release, ReleaseId, release_id, verify_release
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body

DIRECTORY: Final = "releases"
BUNDLE_BYTES_MAX: Final = 32 * 1024 * 1024
_ROW_BYTES_MAX: Final = 256 * 1024


class Bundle(Message):
    """A release as a file, MessagePack: the signed statement and its archive."""

    staple: Staple
    archive: bytes


def put_archive(home: Path, staple: Staple, archive: bytes) -> None:
    """Keep an archive in a headquarters' directory; what it is worth is judged when it is added."""
    make_private_directory(home / DIRECTORY)
    write_file(home / DIRECTORY / f"{release_id(staple).hex()}.zip", archive)


class ReleaseBook:
    """The releases of one network, at one headquarters."""

    def __init__(
        self,
        home: Path,
        store: ControlStore,
        authority: Authority,
        revocations: RevocationBook,
        clock: Clock,
    ) -> None:
        self._directory = home / DIRECTORY
        self._store = store
        self._authority = authority
        self._revocations = revocations
        self._clock = clock

    async def rows(self) -> list[ReleaseRow]:
        """Every release there is, the newest last."""
        reply = await self._store.range(RELEASES)
        rows = [unpack(ReleaseRow, kv.value, bytes_max=_ROW_BYTES_MAX) for kv in reply.items]
        return sorted(rows, key=lambda row: row.added_at)

    async def find(self, text: str) -> ReleaseRow:
        """The release of that name, or whose id begins so. Raises UsageError."""
        rows = await self.rows()
        found = [row for row in rows if row.name == text]
        found = found or [row for row in rows if len(text) >= 8 and row.id.hex().startswith(text)]
        if len(found) != 1:
            raise UsageError(f"no release {text!r}; see: holdfast hq release list")
        self.check(unpack(Staple, found[0].staple, bytes_max=2 * SIGNED_BYTES_MAX))
        return found[0]

    async def add(self, staple: Staple, author: str) -> ReleaseRow:
        """A release that may be handed out from now on. Raises UsageError, PeerFault."""
        release = self.check(staple)
        archive = self.archive(release_id(staple))
        if len(archive) != release.size or hash_bytes(archive) != release.digest:
            raise PeerFault("the archive is not the one that was signed", code="digest")
        rows = await self.rows()
        for row in rows:
            if row.id == release_id(staple):
                return row
            if row.name == release.name:
                raise UsageError(f"another release is called {release.name}; sign it as another")
        if len(rows) >= RELEASES_MAX:
            raise UsageError(f"there are {RELEASES_MAX} releases, the most there may be")
        now = self._clock.wall()
        id = release_id(staple)
        row = ReleaseRow(id, release.name, release.version, pack(staple), now, author)
        key = RELEASES + id.hex()
        if not (await self._store.txn([absent(key)], [Put(key, pack(row))])).succeeded:
            raise OperationFault("somebody else added it just now; look again")
        return row

    def check(self, staple: Staple) -> Release:
        """What a statement says, if it is to be believed now. Raises PeerFault."""
        authority, revoked = self._authority, self._revocations.entries.find
        return verify_release(
            authority.roots, staple, authority.network, self._clock.wall(), revoked
        )

    def archive(self, release: ReleaseId) -> bytes:
        """The bytes to hand out. Raises OperationFault where they are not on this disk."""
        data = read_file(self._directory / f"{release.hex()}.zip")
        if data is None:
            raise OperationFault(
                "this headquarters has no such archive; run on it: holdfast hq release add FILE"
            )
        return data


def statement(row: ReleaseRow) -> Release:
    """What a stored release says."""
    staple = unpack(Staple, row.staple, bytes_max=2 * SIGNED_BYTES_MAX)
    return decode_body(Type.RELEASE, Release, staple.signed)
