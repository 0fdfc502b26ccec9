"""The join race, small; and its judge, who must see a double when there is one (D8)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.main import run
from holdfast.sim.drills.join_race import Issued, JoinRaceReport, judge


@pytest.mark.system
def test_two_processes_give_one_certificate_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    """Seed 004 §2.3: a join token is one-time."""
    status = run(["drill", "join-race", "--tokens", "8", "--clients", "6", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0
    assert (found["tokens"], found["certificates"], found["doubles"]) == (8, 8, 0)
    assert (found["received"], found["refused"], found["unanswered"]) == (8, 40, 0)
    assert found["unknown"] == 0
    assert {"seed", "commit"} <= set(found)


FIRST, SECOND = Issued("1", "relay-eu-001"), Issued("2", "relay-eu-001")


@pytest.mark.parametrize(
    ("race", "issued", "doubles", "unknown"),
    [
        ([FIRST, "token-used"], [FIRST], 0, 0),
        ([FIRST, SECOND], [FIRST, SECOND], 1, 0),
        ([FIRST, "token-used"], [FIRST, SECOND], 1, 0),
        ([FIRST, SECOND], [FIRST], 1, 2),
        ([FIRST, FIRST], [FIRST], 1, 0),
    ],
)
def test_the_judge_sees_doubles(
    race: list[Issued | str], issued: list[Issued], doubles: int, unknown: int
) -> None:
    report = JoinRaceReport(tokens=1, clients=2, hq_processes=2)
    judge(report, [list(enumerate(race))], issued, issued)
    assert (report.doubles, report.unknown) == (doubles, unknown)
    assert report.held == (doubles == 0)
