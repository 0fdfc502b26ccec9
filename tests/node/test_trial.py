"""What a node decides about releases: try, prove, go back (ADR 0041)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.node.trial import OWN, TABLE, Kept, Stage, Trial, Word

NEW, OTHER = b"n" * 32, b"o" * 32


def trying(trial: Trial, release: bytes) -> Trial:
    trial.want(release)
    wish = trial.wish()
    assert wish == release
    trial.begin(wish)
    trial.fetched()
    trial.warm()
    trial.adopted(10.0)
    return trial


def fresh() -> Trial:
    return Trial(Kept(), prove_s=120.0, ready_s=60.0)


def test_a_release_is_trusted_once_it_has_served_for_a_while() -> None:
    trial = trying(fresh(), NEW)
    assert trial.running == NEW
    trial.ready(12.0)
    assert not trial.proved(131.0)
    assert trial.kept.good == OWN, "a restart would start what is trusted"
    assert trial.proved(132.0)
    assert trial.kept == Kept(NEW)
    assert trial.wish() is None


@pytest.mark.parametrize("after", ["begin", "fetched", "warm", "ready"])
def test_whatever_fails_leads_back_to_what_was_trusted(after: str) -> None:
    trial = fresh()
    trial.want(NEW)
    trial.begin(NEW)
    if after != "begin":
        trial.fetched()
    if after in ("warm", "ready"):
        trial.warm()
        trial.adopted(1.0)
    if after == "ready":
        trial.ready(2.0)
    assert trial.failed("it died")
    assert (trial.running, trial.stage) == (OWN, Stage.STEADY)
    assert trial.kept == Kept(OWN, NEW, "it died")
    assert trial.wish() is None, "it is not tried again by itself"


def test_a_refusal_is_over_once_something_else_is_wanted() -> None:
    trial = trying(fresh(), NEW)
    trial.failed("it died")
    assert not trial.want(NEW)
    assert trial.want(OWN)
    assert trial.kept == Kept()
    trial.want(NEW)
    assert trial.wish() == NEW


def test_a_release_that_is_taken_back_while_it_proves_itself_goes_at_once() -> None:
    trial = trying(fresh(), NEW)
    assert trial.wish() is None
    trial.ready(12.0)
    trying(trial, OWN)
    trial.ready(20.0)
    trial.proved(200.0)
    assert trial.kept == Kept()


def test_the_last_resort_is_never_refused() -> None:
    trial = trying(fresh(), NEW)
    trial.ready(12.0)
    trying(trial, OWN)
    assert not trial.failed("it died")
    assert (trial.running, trial.kept) == (OWN, Kept())


def test_a_role_that_dies_later_died_of_itself() -> None:
    trial = trying(fresh(), NEW)
    trial.ready(12.0)
    trial.proved(200.0)
    assert not trial.failed("it died")
    assert trial.running == NEW


def test_who_does_not_serve_in_time_is_overdue_from_when_it_got_the_place() -> None:
    trial = fresh()
    trial.want(NEW)
    trial.begin(NEW)
    trial.fetched()
    trial.warm()
    assert not trial.overdue(1e9), "the old role has not gone yet"
    trial.adopted(100.0)
    assert not trial.overdue(159.0)
    assert trial.overdue(160.0)


def test_what_proves_itself_goes_on_when_the_next_one_cannot_be_had() -> None:
    for end in (lambda t: t.put_off(), lambda t: t.failed("it is no good")):
        trial = trying(fresh(), NEW)
        trial.ready(12.0)
        trial.want(OTHER)
        trial.begin(OTHER)
        end(trial)
        assert (trial.running, trial.stage) == (NEW, Stage.PROVING)
        assert trial.proved(132.0)
        assert (trial.kept.good, trial.kept.before) == (NEW, OWN)


def test_put_off_is_no_refusal() -> None:
    trial = fresh()
    trial.want(NEW)
    trial.begin(NEW)
    trial.put_off()
    assert (trial.kept, trial.wish()) == (Kept(), NEW)


def test_the_release_trusted_before_is_remembered() -> None:
    trial = trying(fresh(), NEW)
    trial.ready(12.0)
    trial.proved(132.0)
    trying(trial, OTHER).ready(140.0)
    assert trial.proved(300.0)
    assert trial.kept == Kept(OTHER, before=NEW)
    trial.want(NEW)
    assert trial.kept.before == NEW


def test_a_trusted_release_that_is_damaged_gives_way_to_what_is_installed() -> None:
    trial = trying(fresh(), NEW)
    assert trial.distrust() == OWN, "one that is tried is refused instead"
    trial.ready(12.0)
    trial.proved(132.0)
    assert trial.distrust() == NEW
    assert (trial.running, trial.kept, trial.wish()) == (OWN, Kept(), NEW)
    assert trial.distrust() == OWN, "there is nothing below it"


def test_what_is_kept_survives_a_restart() -> None:
    trial = Trial(Kept(NEW, OTHER, "why"), 1.0, 1.0)
    assert trial.running == NEW
    trial.want(OTHER)
    assert trial.wish() is None


@given(st.lists(st.tuples(st.sampled_from(Word), st.sampled_from([OWN, NEW, OTHER]))))
def test_a_refused_release_never_runs(story: list[tuple[Word, bytes]]) -> None:
    trial = fresh()
    now = 0.0
    for word, release in story:
        now += 50.0
        if word is Word.WISH:
            trial.want(release)
            wish = trial.wish()
            if wish is not None:
                trial.begin(wish)
        elif word is Word.READY:
            trial.ready(now)
        elif word is Word.PROVED:
            trial.proved(now)
        elif word is Word.FAILED:
            trial.failed("it failed")
        elif word is Word.PUT_OFF:
            if (trial.stage, word) in TABLE:
                trial.put_off()
        elif (trial.stage, word) in TABLE:
            (trial.fetched if word is Word.FETCHED else trial.warm)()
            trial.adopted(now)
        if trial.kept.refused:
            assert trial.kept.refused not in (trial.running, trial.kept.good)
