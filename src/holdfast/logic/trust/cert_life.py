"""The life of a node's certificate: renewed early, with a new key, and loudly when not (D6).

    fresh --(1/3 of its life: day 30)--> due --(1/2: day 45)--> overdue --(9/10: day 81)--> urgent
                                                                                     --> expired

From `due` on the agent asks HQ for a certificate for a *new* key, again and again with growing
waits, and goes on serving with the old one: HQ may be away for weeks and nothing stops. Each phase
past `due` raises one alarm when it is entered. All times are the wall clock's (certificates know no
other, D30), so a phase is asked of the present moment and never counted towards: a clock that steps
back makes a certificate younger, and the machine agrees.

The table says what each phase means; the machine adds retries and says each alarm once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.limits import (
    CERT_OVERDUE_FRACTION,
    CERT_RENEW_FRACTION,
    CERT_URGENT_FRACTION,
    RENEW_RETRY_S,
    RENEW_RETRY_S_MAX,
)
from holdfast.logic.effects import NOTHING, Audit, Effects


class Phase(StrEnum):
    """How far a certificate's life has run."""

    FRESH = "fresh"
    DUE = "due"
    OVERDUE = "overdue"
    URGENT = "urgent"
    EXPIRED = "expired"


TABLE: Final[tuple[tuple[float, Phase, bool], ...]] = (
    (0.0, Phase.FRESH, False),
    (CERT_RENEW_FRACTION, Phase.DUE, False),
    (CERT_OVERDUE_FRACTION, Phase.OVERDUE, True),
    (CERT_URGENT_FRACTION, Phase.URGENT, True),
    (1.0, Phase.EXPIRED, True),
)
"""(from this fraction of the life on, phase, whether entering it raises an alarm)."""


class Certificate(msgspec.Struct, frozen=True):
    """What the machine knows of one: `issued_at` without the issuer's backdating; Unix seconds."""

    serial: str
    issued_at: float
    expires_at: float


class Renew(msgspec.Struct, frozen=True):
    """To the agent: make a new key and ask HQ for a certificate for it."""

    serial: str
    attempt: int


class Alarm(msgspec.Struct, frozen=True):
    """To people: this certificate is not being renewed."""

    serial: str
    phase: Phase
    expires_in_s: float
    attempts: int


def phase_of(certificate: Certificate, now: float) -> Phase:
    """The phase at `now`."""
    fraction = (now - certificate.issued_at) / _life_s(certificate)
    return [phase for start, phase, _ in TABLE if start <= max(0.0, fraction)][-1]


def renew_at(certificate: Certificate) -> float:
    """When renewal begins."""
    return certificate.issued_at + CERT_RENEW_FRACTION * _life_s(certificate)


class CertLife:
    """The machine of one node's certificate. Rebuilt from the certificate alone after a restart."""

    __slots__ = ("_alarmed", "_asked", "_attempts", "_next_at", "certificate")

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self._start()

    def _start(self) -> None:
        assert self.certificate.expires_at > self.certificate.issued_at
        self._attempts = 0
        self._asked = False
        self._next_at = renew_at(self.certificate)
        self._alarmed: frozenset[Phase] = frozenset()

    def tick(self, now: float) -> Effects:
        """Time has passed: ask for a renewal if one is due and none is under way; raise alarms."""
        phase = phase_of(self.certificate, now)
        effects = self._alarm(phase, now)
        if phase is Phase.FRESH:
            return effects + Effects(timers=(renew_at(self.certificate),))
        if self._asked:
            return effects
        if now < self._next_at:
            # A clock that was ahead when the last attempt failed must not silence the next one.
            self._next_at = min(self._next_at, now + RENEW_RETRY_S_MAX)
            return effects + Effects(timers=(self._next_at,))
        self._asked = True
        self._attempts += 1
        return effects + Effects(send=(Renew(self.certificate.serial, self._attempts),))

    def failed(self, now: float, jitter: float) -> Effects:
        """An attempt came to nothing. `jitter` in [0, 1) spreads a fleet that failed together."""
        assert 0 <= jitter < 1
        self._asked = False
        wait_s = min(RENEW_RETRY_S * 2 ** min(self._attempts - 1, 32), RENEW_RETRY_S_MAX)
        self._next_at = now + wait_s * (0.5 + jitter / 2)
        return Effects(timers=(self._next_at,))

    def renewed(self, certificate: Certificate) -> Effects:
        """A new certificate is in place; the old one's life is over."""
        assert certificate.serial != self.certificate.serial
        detail = {"serial": certificate.serial, "attempts": self._attempts}
        audit = Audit("certificate-renewed", self.certificate.serial, detail)
        self.certificate = certificate
        self._start()
        return Effects(timers=(renew_at(certificate),), audit=(audit,))

    def _alarm(self, phase: Phase, now: float) -> Effects:
        loud = next(alarm for _, item, alarm in TABLE if item is phase)
        if not loud or phase in self._alarmed:
            return NOTHING
        self._alarmed |= {phase}
        left_s = self.certificate.expires_at - now
        alarm = Alarm(self.certificate.serial, phase, left_s, self._attempts)
        detail = {"phase": phase.value, "expires_in_s": round(left_s), "attempts": self._attempts}
        audit = Audit("certificate-alarm", self.certificate.serial, detail)
        return Effects(send=(alarm,), audit=(audit,))


def _life_s(certificate: Certificate) -> float:
    return certificate.expires_at - certificate.issued_at
