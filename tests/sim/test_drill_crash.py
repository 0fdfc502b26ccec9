"""The crash drill, small; and its judge, who must see a loss when there is one (seed 004 §9)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.drills.crash import count_lost, percentile
from holdfast.cli.main import run
from holdfast.sim.witness import Held


@pytest.mark.system
def test_nothing_acknowledged_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    line = "drill crash --trials 2 --clients 2 --acks 10 --victims relay,agent --json"
    status = run(line.split())
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0, found
    assert (found["trials"], found["acked_lost"], found["corrupt"]) == (2, 0, 0)
    assert found["victims"] == {"relay": 1, "agent": 1}
    assert found["acked"] >= 20
    assert found["restart_p99_s"] > 0
    assert {"seed", "commit"} <= set(found)


def test_the_judge_wants_two_servers_and_two_disks() -> None:
    """D13: acknowledged means receipts from two relays."""
    one, other = Held(b"t", b"1"), Held(b"t", b"2")
    both = {one, other}
    assert count_lost(both, {one: 2, other: 3}, [both, both, set()]) == 0
    assert count_lost(both, {one: 2, other: 1}, [both, both]) == 1
    assert count_lost(both, {one: 2, other: 2}, [both, {one}]) == 1
    assert count_lost(both, {}, []) == 2


def test_percentiles() -> None:
    assert percentile([], 0.99) == 0.0
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
