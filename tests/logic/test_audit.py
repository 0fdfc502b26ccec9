"""The audit chain: what is changed, dropped, added or moved is found."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.crypto.pure import hash_bytes
from holdfast.logic.audit import Head, check, export_line, extend, import_line
from holdfast.logic.effects import Audit

LINES = [Audit("slot.allocated", f"slot-{n}", {"n": n, "a": "x"}) for n in range(12)]
ROWS, HEAD = extend(Head(), LINES, at=1.5, term=3, author="hq")


def test_an_honest_chain_holds() -> None:
    assert check(ROWS) == (HEAD, [])
    assert check([]) == (Head(), [])
    first, middle = extend(Head(), LINES[:5], at=1.5, term=3, author="hq")
    rest, end = extend(middle, LINES[5:], at=1.5, term=3, author="hq")
    assert (first + rest, end) == (ROWS, HEAD)
    assert check(ROWS, [Head(), middle, HEAD]) == (HEAD, [])


@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(ROWS) - 1))
    row = bytearray(ROWS[place])
    row[data.draw(st.integers(0, len(row) - 1))] ^= data.draw(st.integers(1, 255))
    rows = [*ROWS[:place], bytes(row), *ROWS[place + 1 :]]
    head, breaks = check(rows, [HEAD])
    assert breaks
    if place < len(ROWS) - 1:
        assert check(rows)[1], "found even without a remembered head"
    else:
        assert head != HEAD


@pytest.mark.parametrize("place", range(len(ROWS)))
def test_dropped_swapped_and_doubled_rows_are_found(place: int) -> None:
    dropped = ROWS[:place] + ROWS[place + 1 :]
    doubled = ROWS[: place + 1] + ROWS[place:]
    assert check(dropped, [HEAD])[1]
    assert check(doubled)[1]
    if place:
        swapped = list(ROWS)
        swapped[place - 1], swapped[place] = swapped[place], swapped[place - 1]
        assert check(swapped)[1]


def test_a_cut_end_is_found_by_who_remembers_the_head() -> None:
    _, breaks = check(ROWS[:-1], [HEAD])
    assert [b.sequence for b in breaks] == [len(ROWS)]
    assert check(ROWS[:-1])[1] == [], "a shorter chain is a valid chain to who remembers nothing"


def test_a_rewritten_chain_is_found_by_who_remembers_any_head() -> None:
    lines = [*LINES[:3], Audit("slot.allocated", "another"), *LINES[4:]]
    forged, _ = extend(Head(), lines, at=1.5, term=3, author="hq")
    assert check(forged)[1] == []
    assert check(forged, [HEAD])[1]


def test_export_alone_is_enough_to_check_the_chain() -> None:
    """As a program outside HQ does it: JSON, base64, BLAKE3, nothing of the product."""
    text = [msgspec.json.encode(export_line(row)) for row in ROWS]
    previous = "00" * 32
    for number, line in enumerate(text, start=1):
        fields = json.loads(line)
        assert fields["sequence"] == number
        assert fields["previous"] == previous
        assert fields["hash"] == hash_bytes(import_line(line)).hex()
        assert fields["detail"] == {"n": number - 1, "a": "x"}
        previous = fields["hash"]
    assert [import_line(line) for line in text] == ROWS


@given(st.binary(max_size=80))
def test_garbage_is_no_row(garbage: bytes) -> None:
    with pytest.raises(ValueError):
        import_line(garbage)
    with pytest.raises(ValueError):
        export_line(garbage)
    assert check([garbage])[1]
