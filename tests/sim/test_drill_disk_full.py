"""A full disk, a few times (seed 004 §9)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.main import run

LINE = ("drill", "disk-full", "--trials=4", "--size-mib=160", "--json")


@pytest.mark.system
def test_what_was_acknowledged_stays_and_pushes_come_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = run(LINE)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0, found
    assert (found["trials"], found["refused_full"], found["acked_lost"]) == (4, 4, 0)
    assert (found["reads_failed"], found["refused_otherwise"]) == (0, 0)
    assert found["acked"] > 20
    assert found["restarts"] == 2
    assert found["recovered_s"] <= 5
    assert {"seed", "commit"} <= set(found)
