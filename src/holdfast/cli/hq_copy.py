"""Looking at a network whose headquarters are all gone: out of the sealed copy that nodes keep.

The copy is fetched from whichever node has the newest, checked against the root, opened with the
key file of a continuity recipient and loaded into memory; then the operator's own verbs answer from
it. Whoever can open it is told everything that headquarters knew when it was taken, whatever their
role was: it opens with a key, and there is nobody left to ask. While it answers, the files of
headquarters lie in a private temporary directory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from holdfast.cli.hq_call import COPY_VARIABLE
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.front import dispatch
from holdfast.hq.home import HqHome
from holdfast.hq.main import Headquarters
from holdfast.hq.restore import load_rows, write_files
from holdfast.hq.snapshot import unseal
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file
from holdfast.rim.front_client import FrontClient, bearer
from holdfast.wire.front import CopyHead, FrontCall
from holdfast.wire.snapshot import Snapshot


class Copy(msgspec.Struct, frozen=True):
    """A copy of the store, opened."""

    head: CopyHead
    snapshot: Snapshot

    def words(self, now: float) -> str:
        """What an answer from it must be told with."""
        age_s = max(0, int(now - self.head.made_at))
        return f"this is a copy, {age_s} s old, of revision {self.head.revision}"

    async def read(self, path: str) -> tuple[int, bytes]:
        """What the operator's port would have answered to GET `path` then. Raises UsageError,
        OperationFault."""
        clock = SystemClock()
        with tempfile.TemporaryDirectory(prefix="holdfast-copy-") as scratch:
            home = Path(scratch) / "hq"
            write_files(self.snapshot, home)
            store = await SqliteStore.open(None, clock)
            await load_rows(self.snapshot, store)
            hq = Headquarters(HqHome(home), clock, SystemEntropy())
            try:
                app, key = await hq.look(store)
                return await dispatch(app, _get(path, key, clock.wall()), "copy")
            finally:
                await hq.stop()


async def open_copy(client: FrontClient, identity: Path) -> Copy:
    """The newest copy that any of the client's nodes keeps, opened with a key file. Raises
    OperationFault, PeerFault, UsageError."""
    opener = read_file(identity)
    if opener is None:
        raise UsageError(f"no file {identity}; {COPY_VARIABLE} names the key file of a recipient")
    head, sealed = await client.newest_copy()
    snapshot = unseal(sealed, opener.decode(errors="replace"))
    if (snapshot.network, snapshot.revision) != (head.network, head.revision):
        raise OperationFault("the copy is not what its head says", retryable=False)
    return Copy(head, snapshot)


def _get(path: str, key: str, now: float) -> FrontCall:
    return FrontCall(bytes(16), "GET", path, b"", bearer(key), bytes(32), now)
