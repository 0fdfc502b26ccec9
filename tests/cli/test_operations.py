"""What the guide and the alerts tell people to type can be typed; the guide names every alert."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cyclopts
import pytest
from tests.logic.test_fleet_alerts import CASES, calm, play

from holdfast.cli.main import build
from holdfast.logic.fleet.alerts import Kind

GUIDE = (Path(__file__).parents[2] / "OPERATIONS.md").read_text()
SECTION = GUIDE.partition("## A drill for each failure\n")[2].partition("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]
DRILLS = [command for row in ROWS for command in re.findall(r"`(holdfast [^`]+)`", row[3])]
WORDS = {"ROLE": "relay", "AGE": "age1x", "N": "3"}
"""What stands for a placeholder that must be of a kind."""


def parses(command: str) -> None:
    """Raises what cyclopts says against it. A command at headquarters may leave `--dir` to say."""
    words = [WORDS.get(word, word) for word in shlex.split(command)[1:]]
    app = build()
    for attempt in (words, [*words, "--dir", "hq"]):
        try:
            app.parse_args(attempt, exit_on_error=False, print_error=False)
        except cyclopts.MissingArgumentError as error:
            if "--dir" not in str(error) or attempt is not words:
                raise
        else:
            return


def test_a_command_that_is_none_is_caught() -> None:
    for wrong in ("holdfast hq dance", "holdfast drill heal --death 3", "holdfast hq token create"):
        with pytest.raises(cyclopts.CycloptsError):
            parses(wrong)


@pytest.mark.parametrize("command", DRILLS)
def test_a_drill_of_the_guide_can_be_typed(command: str) -> None:
    parses(command)


def test_every_failure_has_a_way_to_rehearse_it() -> None:
    assert len(ROWS) >= 20
    for row in ROWS:
        assert len(row) == 4, row
        assert "`holdfast " in row[3], row


def test_the_guide_names_every_alert_and_no_other() -> None:
    shown = {word for row in ROWS for word in re.findall(r"`([a-z-]+)`", row[1])}
    assert shown - {"stalled"} == {str(kind) for kind in Kind}


@pytest.mark.parametrize("kind", list(Kind))
def test_what_an_alert_says_to_type_can_be_typed(kind: Kind) -> None:
    alarm, _ = play(calm(**CASES[kind][0]))
    (step,) = {row.step for row in alarm.rows() if row.kind is kind}
    commands = re.findall(r"holdfast [^;,]+?(?=$|;|,| then )", step)
    assert commands or kind is Kind.MACHINE_VANISHED, step
    for command in commands:
        parses(command)
