"""What the page computes: the grid, the levels of redundancy, the chart's history."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.web import story

from holdfast.limits import PAGE_TILES_MAX
from holdfast.logic.fleet.model import Role, Tier
from holdfast.logic.fleet.rows import ServerState
from holdfast.web.copies import debtors, figures, levels, lowest
from holdfast.web.grid import AILING_NAMED_MAX, Lens, grid, tier_counts
from holdfast.web.history import History, Point, staircase
from holdfast.web.model import FleetPage, ServerTile, SlotLine


# --- Grid ----------------------------------------------------------------------------------------
def test_a_small_fleet_is_tiles() -> None:
    found = grid(story.before(), Lens())
    assert not found.crowded
    assert found.regions == ("ap", "eu")
    assert [row.provider.name for row in found.rows] == ["alder", "birch", "cedar"]
    for row in found.rows:
        for cell in row.cells:
            assert [t.role for t in cell.tiles] == [Role.RELAY, Role.REPLICA]
            assert cell.summary == "1 relay, 1 replica: all green"


def test_a_lost_provider_keeps_its_row() -> None:
    alder = grid(story.after(), Lens()).rows[0]
    assert alder.provider.lost
    assert all(not cell.tiles and not cell.marks for cell in alder.cells)


def test_a_large_fleet_is_marks_and_names() -> None:
    found = grid(story.large(), Lens())
    assert found.crowded
    cells = [cell for row in found.rows for cell in row.cells]
    assert sum(len(cell.marks) for cell in cells) == 3_000
    assert not any(cell.tiles for cell in cells)
    ailing = next(cell for cell in cells if cell.ailing)
    named = [name for group in ailing.ailing for name in group.names]
    assert len(named) == AILING_NAMED_MAX
    total = len(named) + sum(group.more for group in ailing.ailing)
    assert total == sum(1 for server in ailing.marks if server.ails)
    assert "91 green" in ailing.summary


def test_a_lens_opens_one_cell() -> None:
    found = grid(story.large(), Lens(provider="elm", region="eu"))
    assert not found.crowded
    assert found.regions == ("eu",)
    assert len(found.rows) == 1
    assert len(found.rows[0].cells[0].tiles) == 100


def test_a_lens_on_nothing_is_empty() -> None:
    found = grid(story.large(), Lens(provider="nobody", region="eu"))
    assert (found.rows, found.regions) == ((), ())


def test_tier_counts_name_green_first() -> None:
    assert tier_counts(story.during()) == (("green", 8), ("starting", 4), ("black", 4))
    assert tier_counts(story.empty()) == (("green", 0),)


PLACES = st.tuples(st.sampled_from(story.PROVIDERS), st.sampled_from(("ap", "eu", "us")))


@given(st.lists(st.tuples(PLACES, st.sampled_from(Tier), st.sampled_from(ServerState))))
def test_the_grid_loses_no_server(given_: list[tuple[tuple[str, str], Tier, ServerState]]) -> None:
    fleet = tuple(
        ServerTile(f"relay-{n}", Role.RELAY, region, provider, tier=tier, state=state)
        for n, ((provider, region), tier, state) in enumerate(given_)
    )
    for copies in (1, PAGE_TILES_MAX):
        many = fleet * copies
        found = grid(FleetPage(0.0, servers=many), Lens())
        drawn = [s for row in found.rows for cell in row.cells for s in cell.tiles + cell.marks]
        assert len(drawn) == len(many)
        assert found.crowded == (len(many) > PAGE_TILES_MAX)


# --- Redundancy ----------------------------------------------------------------------------------
def test_levels_count_slots_and_groups() -> None:
    slots = (
        SlotLine("a", "eu", 3, 3, 5),
        SlotLine("b", "eu", 3, 2, 4),
        SlotLine("c", "eu", 1, 3, 3),
        SlotLine("d", "eu", 0, 0, 2),
    )
    page = FleetPage(0.0, slots=slots)
    found = {level.key: (level.slots, level.groups, level.share) for level in levels(page)}
    assert found == {"full": (1, 5, 0.25), "short": (1, 4, 0.25), "low": (2, 5, 0.5)}
    assert lowest(page) == (0, 0)


@given(st.lists(st.builds(SlotLine, id=st.text(), region=st.just("eu"),
                          relays=st.integers(0, 4), replicas=st.integers(0, 4),
                          groups=st.integers(0, 9))))  # fmt: skip
def test_every_slot_has_one_level(slots: list[SlotLine]) -> None:
    found = levels(FleetPage(0.0, slots=tuple(slots)))
    assert sum(level.slots for level in found) == len(slots)
    assert sum(level.groups for level in found) == sum(slot.groups for slot in slots)


def test_debt_is_told_by_server() -> None:
    again = [msgspec.structs.replace(d, slot="ff", since=d.since + 5) for d in story.debts()[:1]]
    page = msgspec.structs.replace(story.after(), debts=(*story.debts(), *again))
    first, *rest = debtors(page)
    assert (first.name, first.provider, first.slots) == ("relay-ap-alder", "birch", 2)
    assert first.since == story.START + 53
    assert [debtor.slots for debtor in rest] == [1, 1, 1]


def test_figures_say_what_is_short() -> None:
    shown = {f.label: (f.value, f.good) for f in figures(story.during())}
    assert shown == {
        "Servers answer": ("8", False),
        "Relays, at least": ("2", False),
        "Replicas, at least": ("2", False),
        "Diversity debt": ("0", True),
    }


# --- History -------------------------------------------------------------------------------------
def test_history_notes_changes_only() -> None:
    history = History()
    for at, low in ((1.0, (3, 3)), (2.0, (3, 3)), (3.0, (2, 3)), (4.0, None), (5.0, (3, 3))):
        history.note(at, low)
    assert [(p.at, p.relays, p.replicas) for p in history.points] == [
        (1.0, 3, 3),
        (3.0, 2, 3),
        (5.0, 3, 3),
    ]


LOWS = st.tuples(st.integers(0, 3), st.integers(0, 3))


@given(st.lists(st.tuples(st.floats(0, 1e9), LOWS)), st.integers(4, 12))
def test_history_is_bounded_and_keeps_its_depth(
    noted: list[tuple[float, tuple[int, int]]], most: int
) -> None:
    """Whatever is merged, and however the clock steps: in order, capped, and no dip is lost."""
    history = History(most)
    for at, low in noted:
        history.note(at, low)
    points = history.points
    assert len(points) <= most
    assert [p.at for p in points] == sorted(p.at for p in points)
    if noted:
        assert min(p.relays for p in points) == min(low[0] for _, low in noted)
        assert min(p.replicas for p in points) == min(low[1] for _, low in noted)
        assert (points[-1].relays, points[-1].replicas) == noted[-1][1]


def test_pages_are_plain_json() -> None:
    """`/fleet.json` reads back as the same page."""
    for page in (story.before(), story.during(), story.large(40)):
        assert msgspec.json.decode(msgspec.json.encode(page), type=FleetPage) == page


def test_the_staircase_ends_now_and_stays_in_its_box() -> None:
    points = (Point(10.0, 3, 3), Point(20.0, 2, 3), Point(30.0, 3, 3))
    assert staircase(points, 50.0, replicas=False) == "M0.00 0.15H25.00V1.15H50.00V0.15H100"
    assert staircase(points, 30.0, replicas=True).startswith("M0.00 0.15H")
    assert staircase((), 50.0, replicas=True) == ""
