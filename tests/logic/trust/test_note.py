"""Signed notes, checkpoints and tiles as C2SP writes them (issue 4 §6)."""

from __future__ import annotations

import base64
import hashlib

import pytest

from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.logic.trust.checkpoint import Checkpoint, parse_checkpoint
from holdfast.logic.trust.merkle import Tree, leaf_hash
from holdfast.logic.trust.note import (
    Note,
    cosignature_input,
    cosignature_line,
    cosigned_at,
    key_id,
    parse_note,
    signature_line,
    signed_by,
)
from holdfast.logic.trust.tiles import (
    ENTRIES,
    Tile,
    entries_of,
    hashes_of,
    parse_entries,
    parse_tile,
    tile_path,
)

LOG, WITNESS = SigningKey(b"l" * 32), SigningKey(b"w" * 32)
ORIGIN = "kelp.test/log/00"
CHECKPOINT = Checkpoint(ORIGIN, 5, b"r" * 32)


def note() -> Note:
    text = CHECKPOINT.text()
    return Note(text, (signature_line(ORIGIN, LOG.public, LOG.sign(text.encode())),))


def test_the_bytes_are_those_of_the_specification() -> None:
    """Made here by hand from c2sp.org/signed-note and tlog-cosignature."""
    text = f"{ORIGIN}\n5\n{base64.b64encode(b'r' * 32).decode()}\n"
    log_id = hashlib.sha256(ORIGIN.encode() + b"\n\x01" + LOG.public).digest()[:4]
    log_line = base64.b64encode(log_id + LOG.sign(text.encode())).decode()
    at = 1_795_000_000
    witness_id = hashlib.sha256(b"kelp.test/w\n\x04" + WITNESS.public).digest()[:4]
    over = f"cosignature/v1\ntime {at}\n".encode() + text.encode()
    data = witness_id + at.to_bytes(8, "big") + WITNESS.sign(over)
    expected = (
        f"{text}\n— {ORIGIN} {log_line}\n— kelp.test/w {base64.b64encode(data).decode()}\n"
    ).encode()
    signature = WITNESS.sign(cosignature_input(text, at))
    line = cosignature_line("kelp.test/w", WITNESS.public, at, signature)
    assert note().with_lines([line, line]).render() == expected
    assert parse_note(expected).lines[1] == line
    assert cosigned_at(text, line, "kelp.test/w", WITNESS.public) == at


def test_a_note_is_signed_by_its_key_alone() -> None:
    read = parse_note(note().render())
    assert read == note()
    assert signed_by(read, ORIGIN, LOG.public)
    assert not signed_by(read, ORIGIN, WITNESS.public)
    assert not signed_by(read, "other", LOG.public)
    other = Checkpoint(ORIGIN, 6, b"r" * 32).text()
    assert not signed_by(Note(other, read.lines), ORIGIN, LOG.public)


def test_a_cosignature_is_for_one_text_name_key_and_time() -> None:
    text = CHECKPOINT.text()
    line = cosignature_line("w", WITNESS.public, 7, WITNESS.sign(cosignature_input(text, 7)))
    assert cosigned_at(text, line, "w", WITNESS.public) == 7
    assert cosigned_at(text, line, "v", WITNESS.public) is None
    assert cosigned_at(text, line, "w", LOG.public) is None
    assert cosigned_at(Checkpoint(ORIGIN, 6, b"r" * 32).text(), line, "w", WITNESS.public) is None
    later = cosignature_line("w", WITNESS.public, 8, line.signature[8:])
    assert cosigned_at(text, later, "w", WITNESS.public) is None
    plain = signature_line("w", WITNESS.public, WITNESS.sign(text.encode()))
    assert cosigned_at(text, plain, "w", WITNESS.public) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"text\n\nname sig\n",
        "text\n\n— name\n".encode(),
        "text\n\n— na+me AAAAAAAA\n".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name AAAAAAA\n".encode(),
        "text\n\n— name AAAAAAAA".encode(),
        "te\rxt\n\n— name AAAAAAAA\n".encode(),
        b"\xff\n\n",
        b"x" * 70_000,
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        parse_note(data)


@pytest.mark.parametrize(
    "text",
    ["", "a\n5\n", "a\n05\n" + "A" * 43 + "=\n", "a\n-1\n" + "A" * 43 + "=\n", "a\n5\nAAAA\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(PeerFault):
        parse_checkpoint(text)
    assert parse_checkpoint(CHECKPOINT.text()) == CHECKPOINT


def test_a_key_id_is_a_hint_of_four_bytes() -> None:
    assert len(key_id("a", 1, b"k")) == 4
    assert key_id("a", 1, b"k") != key_id("a", 4, b"k")


def test_tile_paths() -> None:
    """The example of tlog-tiles: tile 1234067."""
    for path, tile in (
        ("0/x001/x234/067", Tile(0, 1_234_067)),
        ("0/000.p/1", Tile(0, 0, 1)),
        ("entries/000", Tile(ENTRIES, 0)),
        ("entries/x001/000.p/255", Tile(ENTRIES, 1_000, 255)),
        ("1/999", Tile(1, 999)),
    ):
        assert parse_tile(path) == tile
        assert tile_path(tile) == path
    for bad in (
        "0/1",
        "0/x000/001",
        "9/000",
        "0/000.p/0",
        "0/000.p/256",
        "x/000",
        "0/000/",
        "../0",
    ):
        with pytest.raises(PeerFault):
            parse_tile(bad)


def test_a_log_can_be_rebuilt_from_its_tiles() -> None:
    leaves = [n.to_bytes(4, "big") for n in range(1_000)]
    tree = Tree(leaves)
    again: list[bytes] = []
    for number, width in ((0, 256), (1, 256), (2, 256), (3, 232)):
        tile = Tile(0, number, width)
        data = hashes_of(tree, tile)
        part = leaves[tile.start : tile.start + width]
        assert data == b"".join(map(leaf_hash, part))
        again += parse_entries(entries_of(part))
    assert Tree(again).root() == tree.root()
    top = hashes_of(tree, Tile(1, 0, 3))
    assert top[:32] == tree.root(256)
    with pytest.raises(PeerFault):
        hashes_of(tree, Tile(0, 3, 233))
    with pytest.raises(PeerFault):
        parse_entries(entries_of(leaves[:2])[:-1])
