"""The headline: the worst thing first, then what it costs people. Tiers are seed 004 §4."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.web import story

from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import ServerState
from holdfast.web.model import FleetPage, ProviderLine, ServerTile
from holdfast.web.words import Tone, count, headline, listing, size, state_word


def told(page: FleetPage) -> tuple[Tone, str, str]:
    found = headline(page)
    return found.tone, found.title, " ".join(found.details)


def with_tier(tier: Tier, *names: str, **fields: Any) -> FleetPage:
    fleet = tuple(
        msgspec.structs.replace(s, tier=tier, **fields) if s.name in names else s
        for s in story.servers()
    )
    return msgspec.structs.replace(story.before(), servers=fleet)


def test_calm() -> None:
    assert told(story.before()) == (
        Tone.CALM,
        "All 12 servers answer.",
        "Every slot has 3 of 3 relays and 3 of 3 replicas.",
    )


def test_yellow_is_watched() -> None:
    """Seed 004 §4.1: "Dashboard indicator. Logged. No infrastructure action.\""""
    tone, title, details = told(with_tier(Tier.YELLOW, "relay-eu-alder"))
    assert (tone, title) == (Tone.WATCH, "HQ is watching relay-eu-alder.")
    assert "could not reach it" in details


def test_orange_prepares() -> None:
    """Seed 004 §4.2: "Begins pre-warming a replacement ... but does not provision.\""""
    tone, title, details = told(with_tier(Tier.ORANGE, "relay-eu-alder", "relay-ap-alder"))
    assert (tone, title) == (
        Tone.FAILING,
        "relay-ap-alder and relay-eu-alder fail their checks.",
    )
    assert "nothing is ordered yet" in details


def test_red_is_down() -> None:
    """Seed 004 §4.3."""
    assert told(with_tier(Tier.RED, "relay-eu-alder"))[:2] == (Tone.LOST, "relay-eu-alder is down.")


def test_many_are_counted() -> None:
    names = [s.name for s in story.servers()]
    assert told(with_tier(Tier.RED, *names[:5]))[1] == "5 servers are down."
    assert told(with_tier(Tier.RED, *names[::3]))[1] == "4 servers at alder are down."


def test_black_names_the_provider_and_the_cost() -> None:
    """Seed 004 §4.4: "Provider-level incident declared.\""""
    assert told(story.during()) == (
        Tone.LOST,
        "Provider alder is lost.",
        "4 of 12 servers do not answer. 4 replacements are starting on birch and cedar. "
        "Every slot is short of copies; the poorest has 2 of 3 relays and 2 of 3 replicas.",
    )


def test_healed_on_fewer_providers_is_not_calm() -> None:
    tone, title, details = told(story.after())
    assert tone is Tone.WATCH
    assert title == "Provider alder is lost; its work goes on elsewhere."
    assert "3 of 3 relays" in details
    assert "4 servers share a provider" in details


def test_replaced_but_not_whole_stays_lost() -> None:
    page = msgspec.structs.replace(story.after(), slots=story.slots(3, 2))
    tone, title, details = told(page)
    assert (tone, title) == (Tone.LOST, "Provider alder is lost.")
    assert "2 of 3 replicas" in details


def test_frozen_comes_before_all() -> None:
    tone, title, details = told(story.frozen())
    assert (tone, title) == (Tone.LOST, "HQ has frozen itself.")
    assert "goes on serving" in details
    assert "1 of 3 relays" in details


def test_the_first_minutes() -> None:
    assert told(story.empty())[:2] == (Tone.BUSY, "No server has joined yet.")
    starting = story.servers(cedar={"state": ServerState.SPAWNING, "node": ""})
    page = msgspec.structs.replace(story.before(), servers=starting)
    tone, title, details = told(page)
    assert (tone, title) == (Tone.BUSY, "8 of 12 servers answer.")
    assert "4 servers are starting for the first time." in details


def test_a_filling_replica_is_named() -> None:
    fleet = story.servers(cedar={"filled": False})
    details = told(msgspec.structs.replace(story.before(), servers=fleet))[2]
    assert "replica-ap-cedar and replica-eu-cedar are filling from peers." in details


def test_retired_servers_are_not_counted() -> None:
    old = story.server("relay-eu-alder", state=ServerState.RETIRED, tier=Tier.BLACK)
    page = story.before()
    page = msgspec.structs.replace(page, servers=(*page.servers, old))
    assert told(page)[1] == "All 12 servers answer."


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (34_400_000, "34 MB"), (10**12, "1.0 TB")],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


@given(st.integers(min_value=0, max_value=10**18))
def test_sizes_are_short(number: int) -> None:
    assert len(size(number)) <= len("1,000,000 TB")


def test_counts_and_lists() -> None:
    assert count(1, "slot") == "1 slot"
    assert count(3_000, "slot") == "3,000 slots"
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(list("abcde")) == "a, b, c and 2 others"


TILES = st.builds(
    ServerTile,
    name=st.sampled_from(["relay-eu-1", "relay-eu-2", "replica-ap-3"]),
    role=st.sampled_from([Role.RELAY, Role.REPLICA]),
    region=st.sampled_from(["eu", "ap"]),
    provider=st.sampled_from(story.PROVIDERS),
    state=st.sampled_from(ServerState),
    tier=st.sampled_from(Tier),
    filled=st.booleans(),
)
PAGES = st.builds(
    FleetPage,
    at=st.just(story.START),
    servers=st.lists(TILES, max_size=6).map(tuple),
    providers=st.lists(
        st.builds(ProviderLine, st.sampled_from(story.PROVIDERS), st.sampled_from([0.0, 5.0])),
        max_size=3,
        unique_by=lambda line: line.name,
    ).map(tuple),
    slots=st.sampled_from([(), story.slots(), story.slots(1, 3), story.slots()[:3]]),
    debts=st.sampled_from([(), story.debts()]),
    frozen=st.booleans(),
)


@given(PAGES)
def test_every_page_has_sentences(page: FleetPage) -> None:
    """Whatever is true, the headline is a sentence, and CALM is said of nothing that ails."""
    found = headline(page)
    for text in (found.title, *found.details):
        assert text.endswith(".")
        starts_well = text[0].isupper() or text[0].isdigit()
        assert starts_well or text.split()[0].partition("-")[0] in {"relay", "replica"}
        assert "  " not in text
    if found.tone is Tone.CALM:
        assert not page.frozen
        assert not any(server.ails for server in page.servers)
        assert not any(line.lost for line in page.providers)
    for tile in page.servers:
        assert state_word(tile)
