"""A certificate's life, second by second where it counts (D6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.limits import NODE_CERT_DAYS, NODE_CERT_RENEW_DAYS, RENEW_RETRY_S, RENEW_RETRY_S_MAX
from holdfast.logic.effects import Effects
from holdfast.logic.trust.cert_life import (
    Alarm,
    Certificate,
    CertLife,
    Phase,
    Renew,
    phase_of,
    renew_at,
)

DAY_S = 86_400.0
START = 1_800_000_000.0
CERTIFICATE = Certificate("7", START, START + NODE_CERT_DAYS * DAY_S)


def alarms(effects: Effects) -> list[Phase]:
    return [item.phase for item in effects.send if isinstance(item, Alarm)]


def renewals(effects: Effects) -> list[int]:
    return [item.attempt for item in effects.send if isinstance(item, Renew)]


@pytest.mark.parametrize(
    ("day", "phase"),
    [
        (-1, Phase.FRESH),
        (0, Phase.FRESH),
        (NODE_CERT_RENEW_DAYS - 0.00001, Phase.FRESH),
        (NODE_CERT_RENEW_DAYS, Phase.DUE),
        (44.999, Phase.DUE),
        (45, Phase.OVERDUE),
        (80.999, Phase.OVERDUE),
        (81, Phase.URGENT),
        (89.999, Phase.URGENT),
        (90, Phase.EXPIRED),
        (900, Phase.EXPIRED),
    ],
)
def test_phases_of_a_ninety_day_certificate(day: float, phase: Phase) -> None:
    assert phase_of(CERTIFICATE, START + day * DAY_S) is phase


def test_a_shorter_life_is_renewed_at_a_third_too() -> None:
    """One that an ending intermediate cut to nine days is not left to die on day nine."""
    short = Certificate("8", START, START + 9 * DAY_S)
    assert renew_at(short) == pytest.approx(START + 3 * DAY_S)
    assert renew_at(CERTIFICATE) == pytest.approx(START + NODE_CERT_RENEW_DAYS * DAY_S)


def test_it_asks_once_and_again_only_after_a_failure() -> None:
    life = CertLife(CERTIFICATE)
    due = renew_at(CERTIFICATE)
    assert life.tick(due - 1) == Effects(timers=(due,))
    assert renewals(life.tick(due)) == [1]
    assert renewals(life.tick(due + DAY_S)) == []
    effects = life.failed(due + DAY_S, 0.5)
    assert effects.timers == (due + DAY_S + RENEW_RETRY_S * 0.75,)
    assert renewals(life.tick(due + DAY_S + 1)) == []
    assert renewals(life.tick(effects.timers[0])) == [2]


def test_waits_double_up_to_a_day_and_spread() -> None:
    life = CertLife(CERTIFICATE)
    now = renew_at(CERTIFICATE)
    waits = []
    for _ in range(12):
        assert renewals(life.tick(now))
        low = life.failed(now, 0.0).timers[0]
        waits.append(low - now)
        now = life.failed(now, 0.999).timers[0]
    assert waits[0] == RENEW_RETRY_S / 2
    assert waits[1] == RENEW_RETRY_S
    assert waits[-1] == RENEW_RETRY_S_MAX / 2
    assert waits == sorted(waits)


def test_each_alarm_is_raised_once_and_a_renewal_ends_them() -> None:
    life = CertLife(CERTIFICATE)
    raised = []
    for day in range(95):
        effects = life.tick(START + day * DAY_S)
        raised += [(day, phase) for phase in alarms(effects)]
        if renewals(effects):
            life.failed(START + day * DAY_S, 0.1)
        assert len(effects.audit) == len(alarms(effects))
    assert raised == [(45, Phase.OVERDUE), (81, Phase.URGENT), (90, Phase.EXPIRED)]
    now = START + 95 * DAY_S
    effects = life.renewed(Certificate("9", now, now + 90 * DAY_S))
    assert [item.verb for item in effects.audit] == ["certificate-renewed"]
    assert life.tick(now) == Effects(timers=(renew_at(life.certificate),))
    assert alarms(life.tick(now + 45 * DAY_S)) == [Phase.OVERDUE]


def test_an_expired_certificate_still_asks() -> None:
    """HQ may have been gone for months; the agent does not give up."""
    life = CertLife(CERTIFICATE)
    assert renewals(life.tick(START + 200 * DAY_S)) == [1]


def test_a_clock_that_stepped_forward_and_back_does_not_silence_it() -> None:
    life = CertLife(CERTIFICATE)
    due = renew_at(CERTIFICATE)
    far = due + 3_650 * DAY_S
    assert renewals(life.tick(far))
    life.failed(far, 0.0)
    assert renewals(life.tick(due)) == []
    assert renewals(life.tick(due + RENEW_RETRY_S_MAX)) == [2]


def test_a_clock_that_stepped_back_makes_it_fresh_again() -> None:
    life = CertLife(CERTIFICATE)
    assert renewals(life.tick(renew_at(CERTIFICATE)))
    life.failed(renew_at(CERTIFICATE), 0.0)
    assert life.tick(START - DAY_S) == Effects(timers=(renew_at(CERTIFICATE),))


@given(st.lists(st.tuples(st.floats(-2, 20), st.floats(0, 0.999)), max_size=60))
def test_under_any_clock_one_request_is_open_at_a_time(moves: list[tuple[float, float]]) -> None:
    life = CertLife(CERTIFICATE)
    now, asked = START, False
    for days, jitter in moves:
        now += days * DAY_S
        effects = life.tick(now)
        assert not (asked and renewals(effects))
        asked = asked or bool(renewals(effects))
        assert len(alarms(effects)) <= 1
        if asked and jitter > 0.5:
            life.failed(now, jitter)
            asked = False
