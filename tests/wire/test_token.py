"""A join token is one line that survives copying or says that it did not (D8)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import Role
from holdfast.wire.bech32 import encode_line
from holdfast.wire.codec import pack
from holdfast.wire.token import PREFIX, JoinToken, parse_token

TOKEN = JoinToken(
    network=bytes(range(16)),
    hq=("127.0.0.1:8443", "hq.kelp.test:443", "[::1]:9"),
    roots=(b"a" * 32, b"b" * 32),
    role=Role.RELAY,
    name="relay-eu-001",
    cell="",
    expires_at=1_800_000_000,
    secret=b"s" * 32,
)
LINE = str(TOKEN)


def test_a_line_there_and_back() -> None:
    assert LINE.startswith("hfjoin1")
    assert "\n" not in LINE
    assert parse_token(LINE) == TOKEN
    assert parse_token(LINE.upper()) == TOKEN
    wrapped = "\n".join(LINE[at : at + 60] for at in range(0, len(LINE), 60))
    assert parse_token(f"  {wrapped}\r\n") == TOKEN


def test_a_token_shows_no_secret_by_accident() -> None:
    assert "s" * 8 not in repr(TOKEN)
    assert LINE not in repr(TOKEN)
    assert f"{TOKEN!r}" == repr(TOKEN)


def test_expiry() -> None:
    assert not TOKEN.is_expired(1_799_999_999.9)
    assert TOKEN.is_expired(1_800_000_000)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(LINE) - 1), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l1b"))
def test_one_wrong_letter_is_found(position: int, letter: str) -> None:
    if LINE[position] != letter:
        with pytest.raises(PeerFault):
            parse_token(LINE[:position] + letter + LINE[position + 1 :])


@given(st.integers(0, len(LINE) - 2))
def test_a_lost_or_swapped_letter_is_found(position: int) -> None:
    with pytest.raises(PeerFault):
        parse_token(LINE[:position] + LINE[position + 1 :])
    swapped = LINE[:position] + LINE[position + 1] + LINE[position] + LINE[position + 2 :]
    if swapped != LINE:
        with pytest.raises(PeerFault):
            parse_token(swapped)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": b"short"},
        {"secret": b""},
        {"roots": ()},
        {"roots": (b"short",)},
        {"roots": (b"a" * 32,) * 9},
        {"hq": ()},
        {"hq": ("no port",)},
        {"hq": ("h:1",) * 17},
        {"name": "x\x00"},
        {"cell": "x" * 300},
        {"expires_at": 0},
        {"expires_at": 2**60},
    ],
)
def test_fields_out_of_form_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PeerFault):
        parse_token(str(msgspec.structs.replace(TOKEN, **changes)))


def test_another_version_role_or_kind_of_line_is_refused() -> None:
    fields = list(msgspec.structs.astuple(TOKEN))
    fields[3] = "emperor"
    for data in (b"", b"\x02" + pack(TOKEN), b"\x01" + pack(fields), b"\x01" + pack([*fields, 1])):
        with pytest.raises(PeerFault):
            parse_token(encode_line(PREFIX, data))
    with pytest.raises(PeerFault):
        parse_token(encode_line("hfloc", b"\x01" + pack(TOKEN)))


@given(st.binary(max_size=300))
def test_garbage_is_a_peer_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        parse_token(encode_line(PREFIX, b"\x01" + data))


@given(st.text(max_size=100))
def test_any_text_is_a_peer_fault(text: str) -> None:
    with pytest.raises(PeerFault):
        parse_token(text)


def test_the_line_is_frozen() -> None:
    """Wire format: a token made today must be read by every later version."""
    assert LINE == FROZEN


FROZEN = (
    "hfjoin1qxvvgyqqqypqxpq9qcrsszg2pvxq6rs0jwhrzv3h9cczuvpwxyarsdp5xwcxsufwddjkcupww3jhxap6xs6"
    "r8f6m8garzhf68xfvggrpv9skzctpv9skzctpv9skzctpv9skzctpv9skzctpv9skzctpv8zzqcnzvf3xycnzvf3xy"
    "cnzvf3xycnzvf3xycnzvf3xycnzvf3xycnz54ex2mrp0xk8yetvv9uj6et495crqvdqee45n5sqcss8xumnwdehxum"
    "nwdehxumnwdehxumnwdehxumnwdehxumnwdehxucdjr54u"
)
