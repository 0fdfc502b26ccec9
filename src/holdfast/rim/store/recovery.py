"""Making segments and index agree when a store opens.

The segments are the truth. What the index says of them is believed as far as the index can be:

* closed cleanly, or used by a process of this same boot (the page cache outlives a process): the
  index is sound, and only bytes past what it covers are read;
* anything else (no index, another schema, the machine crashed): it is thrown away and every
  record is read back.

Bytes that are no whole record at the end of a segment are cut off. Whenever something that may
once have been acknowledged is missing, the caller mints a new incarnation, so that no client
resumes from a cursor that could now point at something else (D14). Segments that are gone are
missed by the index, and by the manifest when the index is not believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import apsw

from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.rim.store.files import Files, read_note, write_note
from holdfast.rim.store.index import Index, Row, StreamRow
from holdfast.rim.store.record import HEADER_BYTES, Found, scan
from holdfast.rim.store.segments import Segments, born_of
from holdfast.rim.store.state import State, StreamKey

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_REFRESH_BYTES = 64 * MIB
"""At least the largest commit: what a failed sync may have left only in memory."""
_ROWS_PER_COMMIT = 4_096


class Head(NamedTuple):
    """A stream as remembered when its blobs have expired."""

    slot: bytes
    tag: bytes
    head: int
    first_at: int


def recover(root: Path, segments: Segments) -> tuple[Index, State, bool]:
    """Open the index under `root`, or rebuild it, and load the state from it. True when something
    acknowledged may be missing. Raises OperationFault when neither works."""
    try:
        index, trusted = _open_index(root / "index.sqlite")
        doubt = _agree(index, trusted, root, segments)
        state = State()
        state.load(index)
        index.set_meta("clean", 0)
        index.set_meta("boot", boot_id())
    except (OSError, apsw.Error) as error:
        raise OperationFault(f"the blob store does not open: {error}", retryable=False) from error
    return index, state, doubt


def _agree(index: Index, trusted: bool, root: Path, segments: Segments) -> bool:
    """Bring the index up to the segments. True when something may be lost."""
    heads, doubt = load_heads(root / "heads")
    streams = {(row.slot, row.tag): row for row in index.streams()}
    for head in heads:
        _raise_head(streams, head)
    doubt |= segments.is_missing_some() | _forget_missing(index, segments, streams, heads)
    for name in segments.names():
        doubt |= _catch_up(index, segments, name, streams, trusted)
    index.commit((), streams.values(), ())
    return doubt


def boot_id() -> str:
    """Names this run of the kernel; empty where there is no such thing."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _open_index(path: Path) -> tuple[Index, bool]:
    """The index and whether it may be believed. Raises OSError and apsw.Error."""
    if path.exists():
        try:
            index = Index(path)
            if index.meta("clean") or (boot_id() and index.meta("boot") == boot_id()):
                return index, True
            index.close()
        except apsw.Error:
            pass  # not an index, or a broken one: made anew below
    for stale in path.parent.glob(path.name + "*"):
        stale.unlink()
    return Index(path), False


def _forget_missing(
    index: Index, segments: Segments, streams: dict[StreamKey, StreamRow], heads: Sequence[Head]
) -> bool:
    """Drop indexed segments whose file is gone. A crash in the middle of dropping a day leaves
    that behind, with the day's heads already noted, so it casts no doubt. True when what is gone
    goes further than that."""
    here = set(segments.names())
    noted = {(head.slot, head.tag): head.head for head in heads}
    by_id = {stream.id: key for key, stream in streams.items()}
    doubt = False
    for number, name in index.segments().items():
        born = born_of(name)
        if name in here or born is None:
            continue
        for stream, sequence in index.last_sequences(number, born).items():
            key = by_id[stream]
            if sequence > noted.get(key, 0):
                doubt = True
                _raise_head(streams, Head(*key, sequence, streams[key].first_at))
        index.forget_segment(number, born)
    return doubt


def _catch_up(
    index: Index,
    segments: Segments,
    name: str,
    streams: dict[StreamKey, StreamRow],
    trusted: bool,
) -> bool:
    """Read what the index does not cover of one segment. True when something may be lost."""
    number, covered = index.segment(name)
    size = segments.size(name)
    doubt = False
    if size < covered:  # cut from outside: read it all again
        born = born_of(name)
        assert born is not None, "only born days are recovered"
        index.forget_segment(number, born)
        number, covered = index.segment(name)
        doubt = True
    if size == covered:
        return doubt
    segments.refresh(name, max(covered, size - _REFRESH_BYTES))
    end = covered
    batch: list[Found] = []
    for found in scan(lambda offset, count: segments.read(name, offset, count), covered, size):
        # A gap between records is rot in what may have been acknowledged.
        doubt |= found.offset - end != HEADER_BYTES
        end = found.end
        batch.append(found)
        if len(batch) >= _ROWS_PER_COMMIT:
            _index_batch(index, number, batch, streams, end)
            batch = []
    _index_batch(index, number, batch, streams, end)
    if end < size:
        segments.rollback(name, end)
        segments.sync(name)
        doubt |= not trusted
    return doubt


def _index_batch(
    index: Index,
    segment: int,
    batch: list[Found],
    streams: dict[StreamKey, StreamRow],
    end: int,
) -> None:
    """Enter found records. One that is known, or found twice, keeps its first place."""
    rows: dict[tuple[int, bytes], Row] = {}
    touched: dict[StreamKey, StreamRow] = {}
    for record, offset in batch:
        key = (record.slot, record.tag)
        stream = _raise_head(
            streams, Head(record.slot, record.tag, record.sequence, record.stored_at)
        )
        touched[key] = stream
        row = Row(
            stream.id,
            record.sequence,
            record.blob,
            record.born,
            record.blob_class,
            record.size,
            segment,
            offset,
        )
        rows.setdefault((stream.id, record.blob), row)
    for known in index.known(list(rows)):
        del rows[known]
    index.commit(list(rows.values()), touched.values(), [(segment, end)], skip_conflicts=True)


def _raise_head(streams: dict[StreamKey, StreamRow], seen: Head) -> StreamRow:
    """Let a stream be at least as far as `seen`, making it when new."""
    key = (seen.slot, seen.tag)
    row = streams.get(key)
    if row is None:
        number = max((stream.id for stream in streams.values()), default=0) + 1
        row = StreamRow(number, *seen)
    else:
        head, first_at = max(row.head, seen.head), min(row.first_at, seen.first_at)
        row = row._replace(head=head, first_at=first_at)
    streams[key] = row
    return row


# --- Heads of what has expired -------------------------------------------------------------------
def save_heads(path: Path, files: Files, state: State) -> None:
    """Note every stream's head, durably, before a day's segments go. Raises OSError."""
    heads = [
        Head(stream.slot, stream.tag, stream.head, stream.first_at)
        for stream in state.streams.values()
    ]
    write_note(path, files, heads)


def load_heads(path: Path) -> tuple[list[Head], bool]:
    """The noted heads, and whether the file is damaged. Raises OSError."""
    heads, damaged = read_note(path, list[Head])
    return heads or [], damaged
