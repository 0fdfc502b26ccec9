"""Chunks, packs and recipes: what content becomes on its way out, and back."""

from __future__ import annotations

import io
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.crypto.blob import PAYLOAD_BYTES_MAX
from holdfast.crypto.pure import hash_bytes
from holdfast.device.folder.chunk import Compressor, cut, decode, looks_random, zstd
from holdfast.device.folder.pack import Packer, Place
from holdfast.device.folder.recipe import Digest, RecipeBuilder, read_segment
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits import (
    CHUNK_BYTES_AVG,
    CHUNK_BYTES_MAX,
    CHUNK_BYTES_MIN,
    CHUNKS_INLINE_MAX,
    MIB,
    PACKS_OPEN_MAX,
    RECIPE_SEGMENT_CHUNKS_MAX,
    RECIPE_SEGMENTS_MAX,
)
from holdfast.logic.group.changeset import ENTRIES_BYTES_MAX, Changeset, FileChange, Piece
from holdfast.logic.group.folder import CODEC_RAW, CODEC_ZSTD, content_digest

RANDOM = random.Random(21).randbytes(9 * MIB)


def pieces_of(data: bytes, *, most: int = 1 << 30) -> list[bytes]:
    stream = io.BytesIO(data)

    def read_into(view: memoryview) -> int:
        return stream.readinto(view[:most])

    return [bytes(chunk) for chunk in cut(read_into)]


# --- cutting -------------------------------------------------------------------------------------
def test_boundaries_are_pinned() -> None:
    """Another cutter would still read what this one wrote, but share nothing with it."""
    lengths = [len(chunk) for chunk in pieces_of(RANDOM)]
    assert lengths[:8] == [650152, 174230, 456106, 242339, 432500, 422105, 329616, 114376]
    assert hash_bytes(repr(lengths).encode()).hex()[:16] == "f7e611072e21807f"


def test_chunks_keep_their_bounds() -> None:
    for data in (RANDOM, bytes(9 * MIB), b"line of text\n" * 500_000):
        chunks = pieces_of(data)
        assert b"".join(chunks) == data
        assert max(map(len, chunks)) <= CHUNK_BYTES_MAX <= PAYLOAD_BYTES_MAX
        assert min(map(len, chunks[:-1])) >= CHUNK_BYTES_MIN
    average = len(RANDOM) / len(pieces_of(RANDOM))
    assert CHUNK_BYTES_AVG * 0.8 < average < CHUNK_BYTES_AVG * 1.6


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3 * MIB), st.integers(0, 9 * MIB))
def test_boundaries_do_not_depend_on_how_the_bytes_arrive(most: int, size: int) -> None:
    data = RANDOM[:size]
    assert pieces_of(data, most=max(most, 1000)) == pieces_of(data)


def test_an_insertion_moves_few_boundaries() -> None:
    before = set(pieces_of(RANDOM))
    after = pieces_of(RANDOM[: 4 * MIB] + b"!" + RANDOM[4 * MIB :])
    assert len([chunk for chunk in after if chunk not in before]) <= 3


# --- compressing ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (b"x", CODEC_RAW),
        (b"abc" * 21, CODEC_RAW),
        (b"abc" * 100, CODEC_ZSTD),
        (RANDOM[:1000], CODEC_RAW),
        (RANDOM[:CHUNK_BYTES_MAX], CODEC_RAW),
        (bytes(CHUNK_BYTES_MAX), CODEC_ZSTD),
        (RANDOM[:250_000] + bytes(250_000), CODEC_ZSTD),
    ],
)
def test_a_chunk_is_stored_the_smaller_way(data: bytes, codec: int) -> None:
    got, stored = Compressor().encode(data)
    assert got == codec
    assert len(stored) <= len(data)
    piece = Piece(b"p" * 32, 3, len(stored), len(data), got, hash_bytes(data))
    assert decode(piece, b"..." + stored + b"...") == data


def test_random_data_is_told_from_text_by_samples() -> None:
    assert looks_random(RANDOM[:300_000])
    assert not looks_random(b"some text, " * 30_000)
    assert not looks_random(RANDOM[:1000]), "too small for samples to pay"


def test_a_pack_that_lies_is_a_peer_fault() -> None:
    data = b"content " * 100
    _, stored = Compressor().encode(data)
    good = Piece(b"p" * 32, 0, len(stored), len(data), CODEC_ZSTD, hash_bytes(data))
    assert decode(good, stored) == data
    bomb = zstd.compress(bytes(50 * MIB))
    window = zstd.compress(
        RANDOM,
        options={
            zstd.CompressionParameter.window_log: 27,
            zstd.CompressionParameter.checksum_flag: 1,
        },
    )
    lies = [
        (good, stored[:-1]),
        (good, stored[:-1] + b"\x00"),
        (good, b"\x00" * len(stored)),
        (Piece(b"p" * 32, 0, len(stored), len(data) - 1, CODEC_ZSTD, good.hash), stored),
        (Piece(b"p" * 32, 0, len(stored), len(data), CODEC_ZSTD, b"h" * 32), stored),
        (Piece(b"p" * 32, 0, len(stored), len(stored), CODEC_RAW, good.hash), stored),
        (Piece(b"p" * 32, 0, len(bomb), CHUNK_BYTES_MAX, CODEC_ZSTD, good.hash), bomb),
        (Piece(b"p" * 32, 0, len(window), CHUNK_BYTES_MAX, CODEC_ZSTD, good.hash), window),
    ]
    for piece, payload in lies:
        with pytest.raises(PeerFault):
            decode(piece, payload)


# --- packs ---------------------------------------------------------------------------------------
def packed(sizes: list[int]) -> tuple[list[Place], list[bytes]]:
    """Places and payloads of chunks of these sizes, sealed under made-up ids."""
    packer, places, payloads = Packer(), [], []
    done = []
    for number, size in enumerate(sizes):
        place = Place(b"%032d" % number, size)
        places.append(place)
        done += packer.add(place, CODEC_RAW, bytes((number % 251,)) * size)
    done += packer.close_all()
    for number, pack in enumerate(done):
        pack.sealed(b"%032d" % number)
        payloads.append(pack.payload())
    return places, payloads


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, CHUNK_BYTES_MAX), max_size=60))
def test_every_chunk_is_where_its_place_says(sizes: list[int]) -> None:
    places, payloads = packed(sizes)
    assert all(0 < len(payload) <= PAYLOAD_BYTES_MAX for payload in payloads)
    assert sum(map(len, payloads)) == sum(sizes), "nothing but chunks, back to back"
    for number, place in enumerate(places):
        piece = place.piece()
        payload = payloads[int(piece.pack)]
        stored = payload[piece.offset : piece.offset + piece.stored]
        assert stored == bytes((number % 251,)) * sizes[number]
    for pack in {place.pack for place in places}:
        inside = sorted((p.offset, p.stored) for p in places if p.pack == pack)
        assert inside[0][0] == 0
        assert all(a + size == b for (a, size), (b, _) in pairwise(inside))


def test_packs_are_filled() -> None:
    """DESIGN §6: packs filled before padding; padding file by file costs 1.83x."""
    source = random.Random(3)
    for low, high in ((100, 20_000), (CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)):
        sizes = [source.randint(low, high) for _ in range(60 * MIB // high)]
        _, payloads = packed(sizes)
        padded = len(payloads) * MIB
        assert padded < sum(sizes) * 1.10 + PACKS_OPEN_MAX * MIB


# --- recipes -------------------------------------------------------------------------------------
def places(count: int, per_pack: int) -> list[Place]:
    found = []
    for number in range(count):
        pack = hash_bytes(b"pack%d" % (number // per_pack))
        found.append(
            Place.known(
                Piece(
                    pack, 500_000, 500_001, CHUNK_BYTES_MAX, CODEC_ZSTD, hash_bytes(b"%d" % number)
                )
            )
        )
    return found


@pytest.mark.parametrize("per_pack", [1, 3, 100])
def test_a_long_chunk_list_goes_through_segments_and_back(per_pack: int) -> None:
    wanted = places(20_000, per_pack)
    builder, segments, back = RecipeBuilder(), [], []
    for place in wanted:
        builder.add(place)
        while builder.is_full:
            segments.append(builder.take())
    while builder.pending():
        segments.append(builder.take())
    assert builder.is_long
    for segment in segments:
        assert len(segment) <= CHUNK_BYTES_MAX, "a segment is one chunk"
        back += read_segment(segment)
    assert back == [place.piece() for place in wanted]


def test_one_level_of_recipes_is_enough() -> None:
    """The arithmetic: terabytes of the smallest chunks, and the entry still fits an operation."""
    assert RECIPE_SEGMENTS_MAX * RECIPE_SEGMENT_CHUNKS_MAX * CHUNK_BYTES_MIN >= 2 * 1024**4
    segments = tuple(place.piece() for place in places(RECIPE_SEGMENTS_MAX, 1))
    change = FileChange(b"p" * 255, (), 0o644, 0, 2**61, (), segments, b"d" * 32)
    changeset = Changeset()
    assert changeset.add(change) == 0
    assert len(changeset.finish()) < ENTRIES_BYTES_MAX / 2
    builder = RecipeBuilder()
    *most, last = places(RECIPE_SEGMENTS_MAX + 1, 1)
    for place in most:
        builder.stored(place)
    with pytest.raises(OperationFault):
        builder.stored(last)


def test_a_short_list_needs_no_recipe() -> None:
    builder = RecipeBuilder()
    wanted = places(CHUNKS_INLINE_MAX, 2)
    for place in wanted:
        builder.add(place)
    assert not builder.is_long
    assert builder.pieces() == tuple(place.piece() for place in wanted)


@given(st.binary(max_size=300))
def test_a_segment_of_garbage_is_a_peer_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        read_segment(data)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5))
def test_the_streamed_digest_is_the_one_of_the_log(hashes: list[bytes]) -> None:
    digest = Digest()
    for one in hashes:
        digest.add(one)
    assert digest.value() == content_digest(tuple(hashes))
