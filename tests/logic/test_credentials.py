"""When a provider's key is due, and what a fingerprint tells (seed 004 §5.4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.logic.trust.credentials import CredentialRow, credentials_due, fingerprint

DAY_S = 86_400.0


def row(provider: str, age_days: float, every_days: float, now: float = 1e9) -> CredentialRow:
    return CredentialRow(provider, "f", now - age_days * DAY_S, "ann", every_days=every_days)


def test_the_longest_overdue_come_first_and_the_rest_are_not_due() -> None:
    rows = [
        row("young", 5, 30),
        row("late", 31, 30),
        row("later", 91, 30),
        row("unscheduled", 900, 0),
        CredentialRow("never set", every_days=1.0),
    ]
    assert [item.provider for item in credentials_due(rows, 1e9)] == ["later", "late"]
    assert credentials_due(rows[:1], 1e9 + 24.9 * DAY_S) == ()
    assert len(credentials_due(rows[:1], 1e9 + 25 * DAY_S)) == 1


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 400)), max_size=8))
def test_due_is_exactly_who_is_older_than_its_schedule(ages: list[tuple[float, float]]) -> None:
    rows = [row(f"p{n}", age, every) for n, (age, every) in enumerate(ages)]
    due = {item.provider for item in credentials_due(rows, 1e9)}
    for item, (_, every) in zip(rows, ages, strict=True):
        assert (item.provider in due) == (every > 0 and item.set_at + every * DAY_S <= 1e9)


def test_a_key_for_more_than_machines_is_wide() -> None:
    assert not CredentialRow("p", scopes=("servers",)).is_wide
    assert not CredentialRow("p").is_wide, "the provider does not say"
    assert CredentialRow("p", scopes=("servers", "keys")).is_wide


def test_a_fingerprint_is_of_one_key_at_one_provider_of_one_network() -> None:
    prints = {
        fingerprint(network, provider, value)
        for network in (b"n" * 16, b"m" * 16)
        for provider in ("alder", "birch")
        for value in ("one", "two")
    }
    assert len(prints) == 8
    assert all(len(each) == 16 for each in prints)
    assert fingerprint(b"n" * 16, "alder", "one") in prints
