"""Whose word counts changes slowly (ADR 0010)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.limits.trust import WITNESS_CHANGE_S_MIN
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.witnesses import (
    Candidate,
    SetVerdict,
    WitnessKey,
    WitnessSet,
    changed_owners,
    judge_set,
    next_set,
)


def a_set(n: int, **owners: str) -> WitnessSet:
    """A set at version n: `ada="ab"` gives ada the nodes a and b."""
    keys = [WitnessKey(node.encode() * 32, owner) for owner, ns in owners.items() for node in ns]
    keys.sort(key=lambda key: (key.owner, key.identity))
    return WitnessSet(bytes(16), Version(0, n), n, tuple(keys))


TWO = a_set(1, ada="ab", bob="c")


def verdict(
    offered: WitnessSet,
    known: WitnessSet | None = TWO,
    since_s: float = WITNESS_CHANGE_S_MIN,
    cosigners: int = 2,
) -> SetVerdict:
    return judge_set(known, offered, since_s=since_s, cosigners=cosigners)


def test_the_first_set_and_sets_before_two_owners_are_followed() -> None:
    assert verdict(TWO, None, 0.0, 0) is SetVerdict.ADOPT
    one = a_set(1, ada="a")
    assert one.needed == 0
    assert TWO.needed == 2
    assert verdict(a_set(2, ada="a", bob="b"), one, 0.0, 0) is SetVerdict.ADOPT


def test_one_owner_may_change_in_an_hour_when_two_cosigned_it() -> None:
    third = a_set(2, ada="ab", bob="c", cyd="d")
    assert verdict(third) is SetVerdict.ADOPT
    assert verdict(third, cosigners=1) is SetVerdict.UNWITNESSED
    assert verdict(third, since_s=WITNESS_CHANGE_S_MIN - 1) is SetVerdict.TOO_SOON
    assert verdict(a_set(2, ada="ab", bob="e")) is SetVerdict.ADOPT, "bob has a new machine"


@pytest.mark.parametrize(
    "offered",
    [
        a_set(2, ada="ab", bob="c", eve="e", mal="m"),
        a_set(2, ada="ae", bob="m"),
        a_set(2, eve="e", mal="m"),
        a_set(2, ada="ab"),
        a_set(2),
    ],
    ids=["two newcomers", "two owners' names with other keys", "strangers", "one left", "none"],
)
def test_no_step_brings_two_liars_or_ends_the_watch(offered: WitnessSet) -> None:
    assert verdict(offered) is SetVerdict.TOO_DIFFERENT


def test_one_key_does_not_speak_for_two_owners() -> None:
    assert verdict(a_set(2, ada="ab", bob="cb")) is SetVerdict.MISSHAPEN
    crowd = {f"o{n}": chr(65 + n) for n in range(17)}
    assert verdict(a_set(2, **crowd), None) is SetVerdict.MISSHAPEN


def test_versions() -> None:
    assert verdict(TWO) is SetVerdict.SAME
    assert verdict(a_set(1, ada="ab", cyd="c")) is SetVerdict.CONFLICT
    assert verdict(TWO, a_set(3, ada="ab", bob="c")) is SetVerdict.OLDER


def candidates(**owners: str) -> list[Candidate]:
    keys = a_set(0, **owners).witnesses
    return [Candidate(key, float(key.identity[0])) for key in keys]


def test_headquarters_keeps_members_and_takes_one_step() -> None:
    assert next_set(TWO, candidates(ada="abz", bob="cd"), since_s=WITNESS_CHANGE_S_MIN) == (
        a_set(0, ada="ab", bob="cd").witnesses
    ), "bob's second node joins, ada's third does not"
    assert next_set(TWO, candidates(ada="ab", bob="cd"), since_s=0.0) is None
    assert next_set(TWO, candidates(ada="ab", bob="c"), since_s=1e9) is None
    empty = WitnessSet(bytes(16), Version(0, 0), 0, ())
    assert next_set(empty, candidates(ada="a", bob="b", cyd="c"), since_s=0.0) == (
        a_set(0, ada="a", bob="b", cyd="c").witnesses
    )


@given(
    st.lists(
        st.dictionaries(st.sampled_from("pqrst"), st.sampled_from(["", "x", "y"])), max_size=12
    )
)
def test_clients_follow_every_step_that_an_honest_headquarters_takes(
    worlds: list[dict[str, str]],
) -> None:
    current = a_set(1, p="a", q="b")
    steps = [current]
    nodes = {"p": "a", "q": "b"}
    for world in worlds:
        for owner, change in world.items():
            nodes[owner] = {"": "", "x": owner.upper(), "y": owner + owner.upper()}[change]
        present = candidates(**{owner: ns for owner, ns in nodes.items() if ns})
        witnesses = next_set(current, present, since_s=WITNESS_CHANGE_S_MIN)
        if witnesses is not None:
            version = Version(0, current.version.n + 1)
            current = WitnessSet(bytes(16), version, 0, witnesses)
            steps.append(current)
    for before, after in pairwise(steps):
        assert verdict(after, before) is SetVerdict.ADOPT
        assert len(changed_owners(before, after)) == 1
        assert len(after.owners) >= 2
