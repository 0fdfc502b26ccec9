"""Cutting content into chunks, and chunks into what is stored.

A file up to `CHUNK_BYTES_AVG` is one chunk. A longer one is cut by FastCDC (gear hash, level-1
normalisation) so that an insertion moves no boundary far away; the cutter sees a window, never the
file. Boundaries are part of what makes deduplication work across devices, so the algorithm and its
three sizes are pinned by a test vector; a different cutter would still be read correctly.

A chunk is stored as one zstd frame when that saves a thirty-second of it, raw otherwise. For large
chunks two samples decide whether trying is worth the time: zstd spends five times longer on random
data than the whole rest of the way takes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from pyfastcdc import FastCDC

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import CHUNK_BYTES_AVG, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN
from holdfast.logic.group.changeset import Piece
from holdfast.logic.group.folder import CODEC_RAW, CODEC_ZSTD

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW_BYTES = 2 * 1024 * 1024
assert WINDOW_BYTES > CHUNK_BYTES_MAX
LEVEL = 1
"""Level 3 saves 5 % more of a source tree and costs a quarter more time."""
_SAMPLE_BYTES = 8 * 1024
_SAMPLED_FROM = 64 * 1024
_TINY_BYTES = 64
_WINDOW_LOG_MAX = 20
"""No chunk needs more than 1 MiB of history; a frame that asks for more is hostile."""

Buffer = bytes | bytearray | memoryview


def cut(read_into: Callable[[memoryview], int]) -> Iterator[memoryview]:
    """Chunks of a stream. `read_into` fills a buffer and returns the count, 0 at the end. Each view
    is good until the next one is asked for."""
    cutter = FastCDC(avg_size=CHUNK_BYTES_AVG, min_size=CHUNK_BYTES_MIN, max_size=CHUNK_BYTES_MAX)
    buffer = bytearray(WINDOW_BYTES)
    view = memoryview(buffer)
    filled, ended = 0, False
    while not ended:
        while filled < WINDOW_BYTES and not ended:
            count = read_into(view[filled:])
            filled, ended = filled + count, count == 0
        start = 0
        for piece in cutter.cut_buf(view[:filled]):
            end = start + piece.length
            if end == filled and not ended:
                break  # the window's edge made this cut, not the content
            yield view[start:end]
            start = end
        rest = filled - start
        buffer[:rest] = bytes(view[start:filled])
        filled = rest


def looks_random(data: Buffer) -> bool:
    """Whether two samples of a large chunk refuse to shrink."""
    if len(data) < _SAMPLED_FROM:
        return False
    third = len(data) // 3
    for start in (third, 2 * third):
        sample = data[start : start + _SAMPLE_BYTES]
        if len(zstd.compress(sample, LEVEL)) < _SAMPLE_BYTES * 31 // 32:
            return False
    return True


class Compressor:
    """One thread's compressor; making one costs more than a small chunk."""

    def __init__(self) -> None:
        self._zstd = zstd.ZstdCompressor(level=LEVEL)

    def encode(self, data: Buffer) -> tuple[int, bytes]:
        """(codec, stored bytes) of a chunk."""
        assert 0 < len(data) <= CHUNK_BYTES_MAX
        if len(data) > _TINY_BYTES and not looks_random(data):
            stored = self._zstd.compress(data, self._zstd.FLUSH_FRAME)
            if len(stored) < len(data) - (len(data) >> 5):
                return CODEC_ZSTD, stored
        return CODEC_RAW, bytes(data)


def decode(piece: Piece, payload: Buffer) -> Buffer:
    """The plain bytes of `piece` out of its pack's payload, checked against its hash.

    Raises PeerFault when the pack holds anything else.
    """
    stored = memoryview(payload)[piece.offset : piece.offset + piece.stored]
    if len(stored) != piece.stored:
        raise PeerFault("chunk reaches past the end of its pack")
    plain: Buffer = stored
    if piece.codec == CODEC_ZSTD:
        plain = _decompress(stored, piece.plain)
    if len(plain) != piece.plain or hash_bytes(memoryview(plain)) != piece.hash:
        raise PeerFault("chunk that is not what its reference says", code="corrupt")
    return plain


def _decompress(stored: memoryview, plain_bytes: int) -> bytes:
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG_MAX}
    decompressor = zstd.ZstdDecompressor(options=options)
    try:
        plain = decompressor.decompress(stored, max_length=plain_bytes)
    except zstd.ZstdError as error:
        raise PeerFault(f"chunk does not decompress: {error}", code="corrupt") from error
    return plain
