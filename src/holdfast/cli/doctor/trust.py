"""Certificates, root pins and revocation lists: how old, how long yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from holdfast.cli.doctor.finding import Finding, bad, note, ok
from holdfast.crypto.certificates import BACKDATE_S
from holdfast.crypto.certinfo import cert_info, fingerprint
from holdfast.crypto.rootset import only_roots
from holdfast.limits.doctor import (
    INTERMEDIATE_ENDS_DAYS_MIN,
    REVOCATIONS_AGE_S_MAX,
    ROOT_ENDS_DAYS_MIN,
)
from holdfast.logic.trust.cert_life import Certificate, Phase, phase_of
from holdfast.wire.hq import RootReply
from holdfast.wire.records import Revocations

_DAY_S = 86_400


def leaf(der: bytes, now: float) -> Iterator[Finding]:
    """A node's own certificate, renewed at day 30 of 90."""
    info = cert_info(der)
    life = Certificate(info.serial, info.not_before + BACKDATE_S, info.not_after)
    phase = phase_of(life, now)
    age, left = (now - life.issued_at) / _DAY_S, (info.not_after - now) / _DAY_S
    text = f"{age:.0f} days old, {left:.0f} to go"
    if phase is Phase.EXPIRED:
        text = f"expired {-left:.1f} days ago"
        step = "nobody talks to this node; ask for a token and join anew in a new --dir"
        yield bad("certificate", text, step)
    elif phase in (Phase.OVERDUE, Phase.URGENT):
        step = "the agent could not renew it: see the link to headquarters, and its log"
        yield bad("certificate", text, step)
    else:
        yield ok("certificate", text)


def intermediate(der: bytes, now: float, step: str) -> Iterator[Finding]:
    """Headquarters' authority."""
    left = (cert_info(der).not_after - now) / _DAY_S
    text = f"headquarters' intermediate ends in {left:.0f} days"
    if left < INTERMEDIATE_ENDS_DAYS_MIN:
        yield bad("intermediate", text, step)
    else:
        yield ok("intermediate", text)


def pins(roots: Sequence[bytes], now: float, offered: RootReply | None = None) -> Iterator[Finding]:
    """The pinned roots, against those that headquarters hands out."""
    own = only_roots(roots)
    marks = ", ".join(fingerprint(root).hex()[:16] for root in own)
    left = min((cert_info(root).not_after - now) / _DAY_S for root in own)
    if left < ROOT_ENDS_DAYS_MIN:
        step = "roll it over now: holdfast root rollover"
        yield bad("roots", f"a pinned root ends in {left:.0f} days", step)
    theirs = set(only_roots(offered.roots)) if offered is not None else set(own)
    if not theirs & set(own):
        text = f"headquarters hands out other roots than are pinned here ({marks})"
        yield bad("roots", text, "do not trust it; compare fingerprints: holdfast root show")
    elif theirs != set(own):
        text = f"headquarters hands out {len(theirs)} roots, {len(own)} are pinned here ({marks})"
        yield note("roots", text, "a rollover is under way; nodes follow at their next renewal")
    else:
        yield ok("roots", f"{len(own)} pinned: {marks}")


def revocations(listed: Revocations | None, now: float) -> Iterator[Finding]:
    """The list that the node's role was given last."""
    if listed is None:
        yield bad("revocations", "no list was ever received", "see the link to headquarters")
        return
    age_s = now - listed.issued_at
    text = f"{len(listed.entries)} entries, issued {age_s / _DAY_S:.1f} days ago"
    if age_s > REVOCATIONS_AGE_S_MAX:
        step = "headquarters signs a new one every day: see the link to it"
        yield bad("revocations", text, step)
    else:
        yield ok("revocations", text)
