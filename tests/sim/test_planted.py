"""Planted bugs: each still fits the code, one is hunted here, and the honest code is not accused.

`holdfast sim planted` hunts them all; `tests/planted/check_unit.py` says whether the unit tests of
a bug's module notice it. They do not: that is what makes it worth planting.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import holdfast
from holdfast.rim.clock import SystemClock
from holdfast.sim.bench_allocate import Bench
from holdfast.sim.hunt import Bug, read_bug
from holdfast.sim.planted import hunt_all
from holdfast.sim.world.day import Day, Plan
from holdfast.sim.world.plot import draw_day

PLANTED = Path(__file__).parents[1] / "planted"
FILES = sorted(PLANTED.glob("*.toml"))
SRC = Path(holdfast.__file__).parent.parent


def test_there_are_planted_bugs_and_half_repeat_failures_of_others() -> None:
    bugs = [read_bug(path) for path in FILES]
    assert 2 * sum(bool(bug.like) for bug in bugs) >= len(bugs) > 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_planted_bug_fits_the_code_of_today(path: Path) -> None:
    bug = read_bug(path)
    source = (SRC / (bug.module.replace(".", "/") + ".py")).read_text()
    assert source.count(bug.old) == 1
    compile(source.replace(bug.old, bug.new), bug.module, "exec")


def test_a_foreign_bug_is_found_in_a_process_of_its_own(tmp_path: Path) -> None:
    patch = tmp_path / "foreign.toml"
    patch.write_text(
        'module = "holdfast.logic.pool.seats"\n'
        'old = "return len(holders) >= quorum and len(domains) >= domains_min"\n'
        'new = "return len(holders) >= 1"\n'
    )
    report = hunt_all([patch], seeds=2, at_once=1, timeout_s=120.0)
    assert report.held, report.hunts
    assert report.hunts[0].seed == 1


@pytest.mark.parametrize(
    "text", ["", 'module = "os"\nold = "a"\nnew = "b"', 'module = "holdfast.x"\nold = ""\nnew = ""']
)
def test_what_is_no_bug_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="bad"):
        read_bug(path)


def test_a_bug_whose_text_is_gone_says_so(tmp_path: Path) -> None:
    path = tmp_path / "stale.toml"
    path.write_text('module = "holdfast.logic.pool.seats"\nold = "no such text"\nnew = "x"\n')
    words = [sys.executable, "-m", "holdfast.sim.hunt", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "0 times" in done.stderr


def test_a_bug_reads_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    words = {"module": "holdfast.a", "old": "x", "new": "y", "lesson": "l", "like": "k"}
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in words.items()))
    assert read_bug(path) == Bug("one", "holdfast.a", "x", "y", "l", "k")


# --- Beside them ---------------------------------------------------------------------------------
def test_seed_004_6_1_many_users_by_every_rule() -> None:
    report = Bench(20_000, 300, 1, SystemClock()).run()
    assert report.violations == 0, report.kinds
    assert report.users == 20_000
    assert report.imbalance <= 1.1, "150 servers and slots of whole users: a step is coarser here"


def test_a_day_is_drawn() -> None:
    day = Day(Plan(12, 600, 1.0, 1, provider_loss=True), SystemClock())
    day.run()
    root = ElementTree.fromstring(draw_day(day))
    assert len(root.findall("{*}polygon")) == 4
    assert len(root.findall("{*}rect")) > 4
