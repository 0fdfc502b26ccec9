"""Rumours kill nobody, and would if nothing verified them (seed 004 §4.1, §9.1)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.main import run
from holdfast.sim.drills.rumour import Rumour, Weather, rumours_alone


def test_the_drill_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    line = "drill false-red --reports-per-min 2000 --minutes 18 --seed 3 --json"
    status = run(line.split())
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0, found
    assert (found["false_red"], found["spawns"]) == (0, 0)
    assert found["true_red"] == found["deaths"] == 3
    assert found["slow_observers"] >= 1
    assert found["spawns_forged_without_verification"] > 0


def test_rumours_alone_order_machines_only_where_they_are_believed() -> None:
    asked, believed = rumours_alone(seed=2)
    assert (asked.spawns, asked.false_red) == (0, 0)
    assert asked.yellow > 0, "they were heard"
    assert believed.spawns > 0 < believed.false_red


def test_the_same_seed_is_the_same_story() -> None:
    weather = Weather(reports_per_min=300)
    assert Rumour(weather, 5).run(8) == Rumour(weather, 5).run(8)
