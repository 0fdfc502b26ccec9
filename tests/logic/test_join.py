"""Joining, every combination of it: default deny, and the order of reasons (D8)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.crypto.pure import base32, node_id, sha256
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import NodeState, TokenRow
from holdfast.logic.trust.join import (
    TABLE,
    Attempt,
    Held,
    Outcome,
    Proof,
    Standing,
    TokenState,
    audit_of,
    rule,
    standing_of,
    token_state,
)

NETWORK = bytes(16)
NOW = 1_000.0
ME, OTHER = b"m" * 32, b"o" * 32
KEY, OTHER_KEY = sha256(b"spki"), sha256(b"other")


def token(**changes: object) -> TokenRow:
    values: dict[str, object] = {
        "role": Role.RELAY,
        "name": "relay-eu-001",
        "region": "eu",
        "provider": "alder",
        "owner": "o",
        "cell": "",
        "expires_at": NOW + 1,
    }
    return TokenRow(**(values | changes))  # type: ignore[arg-type]


TOKENS: dict[TokenState, tuple[TokenRow | None, bytes]] = {
    TokenState.UNKNOWN: (None, b""),
    TokenState.GOOD: (token(), b""),
    TokenState.EXPIRED: (token(expires_at=NOW), b""),
    TokenState.STANDS_BY: (token(name=""), b""),
    TokenState.OTHER_ROLE: (token(role=Role.REPLICA), b""),
    TokenState.BURNED_BY_THIS: (token(used_by=node_id(ME)), KEY),
    TokenState.BURNED_BY_OTHER_KEY: (token(used_by=node_id(ME)), OTHER_KEY),
    TokenState.BURNED_BY_OTHER: (token(used_by=node_id(OTHER)), OTHER_KEY),
}


def attempt(proof: Proof = Proof.GOOD) -> Attempt:
    if proof is Proof.OTHER_NETWORK:
        return Attempt(Proof.GOOD, ME, KEY, b"x" * 16, Role.RELAY)
    return Attempt(proof, ME, KEY, NETWORK, Role.RELAY)


@pytest.mark.parametrize("state", TokenState)
def test_every_token_state_is_reached(state: TokenState) -> None:
    row, burned = TOKENS[state]
    assert token_state(attempt(), Held(row, burned, Standing.NEW), NOW) is state


def test_exactly_two_combinations_are_let_through() -> None:
    """Every message x every credential state (reliability §2.2, CVE-2026-30836)."""
    through = {}
    unforeseen = []
    for proof, state, standing in itertools.product(Proof, TokenState, Standing):
        row, burned = TOKENS[state]
        ruling = rule(attempt(proof), Held(row, burned, standing), NETWORK, NOW)
        if ruling.outcome is Outcome.REFUSE:
            assert ruling.text
            if ruling.code == "refused":
                unforeseen.append((proof, state, standing))
        else:
            through[proof, state, standing] = ruling.outcome
    assert through == TABLE
    assert len(through) == 2
    # A token burned by a node that has no row cannot be; if it is, the default denies it.
    assert unforeseen == [(Proof.GOOD, TokenState.BURNED_BY_THIS, Standing.NEW)]


CODES = [
    (Proof.BAD_REQUEST, TokenState.GOOD, Standing.NEW, "malformed"),
    (Proof.BAD_ADDRESS, TokenState.GOOD, Standing.NEW, "malformed"),
    (Proof.BAD_SIGNATURE, TokenState.BURNED_BY_OTHER, Standing.REVOKED, "signature"),
    (Proof.OTHERS_KEY, TokenState.GOOD, Standing.NEW, "key"),
    (Proof.OTHER_NETWORK, TokenState.UNKNOWN, Standing.NEW, "network"),
    (Proof.GOOD, TokenState.UNKNOWN, Standing.REVOKED, "token"),
    (Proof.GOOD, TokenState.BURNED_BY_OTHER, Standing.REVOKED, "token-used"),
    (Proof.GOOD, TokenState.BURNED_BY_OTHER_KEY, Standing.MEMBER, "token-used"),
    (Proof.GOOD, TokenState.BURNED_BY_THIS, Standing.REVOKED, "revoked"),
    (Proof.GOOD, TokenState.BURNED_BY_THIS, Standing.RETIRED, "retired"),
    (Proof.GOOD, TokenState.EXPIRED, Standing.NEW, "token-expired"),
    (Proof.GOOD, TokenState.OTHER_ROLE, Standing.NEW, "role"),
    (Proof.GOOD, TokenState.GOOD, Standing.MEMBER, "member"),
    (Proof.GOOD, TokenState.GOOD, Standing.RETIRED, "retired"),
    (Proof.GOOD, TokenState.GOOD, Standing.REVOKED, "revoked"),
]


@pytest.mark.parametrize(("proof", "state", "standing", "code"), CODES)
def test_reasons(proof: Proof, state: TokenState, standing: Standing, code: str) -> None:
    row, burned = TOKENS[state]
    ruling = rule(attempt(proof), Held(row, burned, standing), NETWORK, NOW)
    assert (ruling.outcome, ruling.code) == (Outcome.REFUSE, code)


def test_what_the_joiner_does_not_say_is_not_held_against_it() -> None:
    silent = Attempt(Proof.GOOD, ME, KEY)
    held = Held(token(role=Role.REPLICA), b"", Standing.NEW)
    assert rule(silent, held, NETWORK, NOW).outcome is Outcome.ISSUE


def test_expiry_is_exact_and_a_replay_outlives_it() -> None:
    good = Held(token(expires_at=NOW), b"", Standing.NEW)
    assert rule(attempt(), good, NETWORK, NOW - 0.001).outcome is Outcome.ISSUE
    assert rule(attempt(), good, NETWORK, NOW).outcome is Outcome.REFUSE
    burned = Held(token(expires_at=NOW, used_by=node_id(ME)), KEY, Standing.MEMBER)
    assert rule(attempt(), burned, NETWORK, NOW + 1e6).outcome is Outcome.REPLAY


def test_an_unreadable_key_never_replays() -> None:
    burned = Held(token(used_by=node_id(ME)), b"", Standing.MEMBER)
    empty = Attempt(Proof.GOOD, ME, b"")
    assert rule(empty, burned, NETWORK, NOW).outcome is Outcome.REFUSE


@given(
    st.sampled_from(Proof),
    st.binary(max_size=33),
    st.binary(max_size=33),
    st.binary(max_size=16),
    st.none() | st.sampled_from(Role),
    st.none() | st.builds(token, used_by=st.binary(max_size=33), expires_at=st.floats(0, 2_000)),
    st.sampled_from(Standing),
)
def test_it_is_total_and_never_lets_a_bad_proof_through(
    proof: Proof,
    identity: bytes,
    key: bytes,
    network: bytes,
    role: Role | None,
    row: TokenRow | None,
    standing: Standing,
) -> None:
    ruling = rule(
        Attempt(proof, identity, key, network, role), Held(row, key, standing), NETWORK, NOW
    )
    if proof is not Proof.GOOD or row is None or standing in (Standing.REVOKED, Standing.RETIRED):
        assert ruling.outcome is Outcome.REFUSE


def test_the_loser_is_named_with_the_winner() -> None:
    """Tailscale TS-2025-007: the log could not show who raced whom."""
    row, burned = TOKENS[TokenState.BURNED_BY_OTHER]
    held = Held(row, burned, Standing.NEW)
    line = audit_of(rule(attempt(), held, NETWORK, NOW), held, node_id(ME), "127.0.0.1")
    assert (line.verb, line.subject) == ("join.refused", "relay-eu-001")
    assert line.detail["node"] == base32(node_id(ME))
    assert line.detail["used_by"] == base32(node_id(OTHER))
    assert line.detail["source"] == "127.0.0.1"


def test_standings() -> None:
    assert [standing_of(state) for state in (None, *NodeState)] == list(Standing)
