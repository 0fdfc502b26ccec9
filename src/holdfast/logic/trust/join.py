"""Joining as a table (D8): what a request is, what the token is, who asks -> one ruling.

Three questions, each with a closed set of answers:

* the *proof*: is the request well-formed, is the TLS key its own, did the identity key sign it?
* the *token*: nobody's, good, past its time, meant for another role, burned, and by whom?
* the *standing* of the identity: never seen, a member, retired, revoked?

`TABLE` names the combinations that do anything but refuse, and there are two: a certificate is
issued to a new identity with a good proof and a good token, and a member that burned this very
token with this very key gets the same reply again. Everything else is refused, including whatever
nobody thought of (step-ca's CVE-2026-30836 was a message kind that no branch handled). A refusal
changes nothing: a token is burned by issuing and by nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.crypto.pure import base32, hash_bytes, node_id
from holdfast.logic.effects import Audit
from holdfast.logic.fleet.model import NetworkId, NodeId, Role
from holdfast.logic.fleet.rows import NodeState, TokenRow


class Proof(StrEnum):
    """What the request proves about itself."""

    GOOD = "good"
    BAD_ADDRESS = "bad-address"
    BAD_REQUEST = "bad-request"
    BAD_SIGNATURE = "bad-signature"
    OTHERS_KEY = "others-key"
    """The TLS key has a certificate under another identity."""
    OTHER_NETWORK = "other-network"


class TokenState(StrEnum):
    """What the token is to this request."""

    UNKNOWN = "unknown"
    GOOD = "good"
    EXPIRED = "expired"
    STANDS_BY = "stands-by"
    """Of a machine that no seat needs yet."""
    OTHER_ROLE = "other-role"
    BURNED_BY_THIS = "burned-by-this"
    """By this identity for this TLS key: its reply got lost."""
    BURNED_BY_OTHER_KEY = "burned-by-other-key"
    """By this identity, for another TLS key."""
    BURNED_BY_OTHER = "burned-by-other"


class Standing(StrEnum):
    """Who the identity is in the fleet."""

    NEW = "new"
    MEMBER = "member"
    RETIRED = "retired"
    REVOKED = "revoked"


class Outcome(StrEnum):
    """What to do."""

    ISSUE = "issue"
    REPLAY = "replay"
    REFUSE = "refuse"


class Ruling(msgspec.Struct, frozen=True):
    """What comes out. `code` is PROTOCOL.md's word for a refusal; `text` is for the person."""

    outcome: Outcome
    code: str = ""
    text: str = ""


class Attempt(msgspec.Struct, frozen=True):
    """One join request, its cryptography checked by the caller.

    `proof` says how that went; `identity` is the Ed25519 key and `key_hash` the SHA-256 of the TLS
    key's SPKI (empty when it could not be read). `network` and `role` are what the joiner believes,
    empty and None when it did not say.
    """

    proof: Proof
    identity: bytes
    key_hash: bytes
    network: NetworkId = b""
    role: Role | None = None


class Held(msgspec.Struct, frozen=True):
    """What HQ knows: the token's row, the TLS key that burned it, the identity's node row."""

    token: TokenRow | None
    burned_key_hash: bytes
    standing: Standing


TABLE: Final[dict[tuple[Proof, TokenState, Standing], Outcome]] = {
    (Proof.GOOD, TokenState.GOOD, Standing.NEW): Outcome.ISSUE,
    (Proof.GOOD, TokenState.BURNED_BY_THIS, Standing.MEMBER): Outcome.REPLAY,
}
"""Everything that is not here is refused."""

_REFUSALS: Final[tuple[tuple[StrEnum, str, str], ...]] = (
    # A request that proves nothing learns nothing of the token.
    (Proof.BAD_REQUEST, "malformed", "the certificate request cannot be read"),
    (Proof.BAD_ADDRESS, "malformed", "clients cannot dial this address; give --advertise IP:PORT"),
    (Proof.BAD_SIGNATURE, "signature", "the identity key did not sign this TLS key"),
    (Proof.OTHERS_KEY, "key", "another node has a certificate for this TLS key; make a new key"),
    (Proof.OTHER_NETWORK, "network", "this is the headquarters of another network"),
    (TokenState.UNKNOWN, "token", "no such token; ask for a new one"),
    (TokenState.BURNED_BY_OTHER, "token-used", "the token was used by another node; ask for one"),
    (Standing.REVOKED, "revoked", "this node was revoked; make a new identity and ask to join"),
    (Standing.RETIRED, "retired", "this node was retired; make a new identity and join anew"),
    (TokenState.BURNED_BY_OTHER_KEY, "token-used", "you joined with another TLS key; renew"),
    (TokenState.EXPIRED, "token-expired", "the token is past its time; ask for a new one"),
    (TokenState.STANDS_BY, "standby", "this machine stands by; headquarters has not called it"),
    (TokenState.OTHER_ROLE, "role", "the token is for another role; ask for the right one"),
    (Standing.MEMBER, "member", "this node has joined already; renew its certificate instead"),
)
"""Why not, the first that applies."""

_DENIED: Final = Ruling(Outcome.REFUSE, "refused", "not admitted")


def token_hash(secret: bytes) -> bytes:
    """How a token is known to HQ: BLAKE3 of its secret. The secret itself is nowhere."""
    return hash_bytes(secret)


def standing_of(state: NodeState | None) -> Standing:
    """A node row's state as a standing; None for an identity without a row."""
    match state:
        case None:
            return Standing.NEW
        case NodeState.ACTIVE:
            return Standing.MEMBER
        case NodeState.RETIRED:
            return Standing.RETIRED
        case NodeState.REVOKED:
            return Standing.REVOKED


def token_state(attempt: Attempt, held: Held, now: float) -> TokenState:
    """What the token is to this attempt. `now` is Unix seconds."""
    token = held.token
    if token is None:
        return TokenState.UNKNOWN
    if token.used_by:
        if token.used_by != node_id(attempt.identity):
            return TokenState.BURNED_BY_OTHER
        same = bool(attempt.key_hash) and attempt.key_hash == held.burned_key_hash
        return TokenState.BURNED_BY_THIS if same else TokenState.BURNED_BY_OTHER_KEY
    if now >= token.expires_at:
        return TokenState.EXPIRED
    if not token.name:
        return TokenState.STANDS_BY
    if attempt.role is not None and attempt.role != token.role:
        return TokenState.OTHER_ROLE
    return TokenState.GOOD


def rule(attempt: Attempt, held: Held, network: NetworkId, now: float) -> Ruling:
    """The ruling on an attempt, from what HQ knows. Total: every input has one."""
    proof = attempt.proof
    if proof is Proof.GOOD and attempt.network not in (b"", network):
        proof = Proof.OTHER_NETWORK
    state = token_state(attempt, held, now)
    outcome = TABLE.get((proof, state, held.standing), Outcome.REFUSE)
    if outcome is not Outcome.REFUSE:
        return Ruling(outcome)
    for found, code, text in _REFUSALS:
        if any(found is fact for fact in (proof, state, held.standing)):
            return Ruling(Outcome.REFUSE, code, text)
    return _DENIED


def audit_of(ruling: Ruling, held: Held, node: NodeId, source: str) -> Audit:
    """The line that names who tried what, and, for a token that is spent, who had spent it."""
    token = held.token
    detail: dict[str, str] = {"node": base32(node), "source": source}
    if token is not None:
        detail |= {"name": token.name, "role": token.role.value, "intent": token.intent}
        if token.used_by:
            detail["used_by"] = base32(token.used_by)
    if ruling.outcome is Outcome.REFUSE:
        detail |= {"code": ruling.code, "reason": ruling.text}
    verb = {
        Outcome.ISSUE: "join.issued",
        Outcome.REPLAY: "join.replayed",
        Outcome.REFUSE: "join.refused",
    }[ruling.outcome]
    return Audit(verb, token.name if token is not None else "unknown token", detail)
