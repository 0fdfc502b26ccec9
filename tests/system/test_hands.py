"""The whole story on machines of their own, and OPERATIONS.md as what was typed there (D2, D8).

Three minutes of waiting for machines: `bin/test -m campaign`."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import run

pytestmark = [pytest.mark.system, pytest.mark.campaign]
OPERATIONS = Path(__file__).parents[2] / "OPERATIONS.md"
SECTION = "## A network of several machines"
LEFT_TO_TASTE = {"--passphrase-file", "--time-scale", "--json", "--dir", "--listen"}
"""Where a machine keeps things, a terminal's questions, and the drill's hurry."""


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """The report of one drill, and what was typed."""
    home = tmp_path_factory.mktemp("hands")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        run(("drill", "hands", "--time-scale=60", f"--keep={home}", "--json"))
    typed = (home / "transcript.txt").read_text().splitlines()
    return json.loads(said.getvalue().splitlines()[-1]), typed


def test_it_holds(played: tuple[dict[str, Any], list[str]]) -> None:
    report, typed = played
    assert report["commands_typed"] == len(typed) > 40
    assert report["namespaces"] == 7
    assert report["nodes"] == 8
    for key in (
        *("files_equal", "outbound_only", "control_seen", "told_of_dead"),
        *("fenced", "refused_revoked", "clean_stop"),
    ):
        assert report[key] is True, (key, report)
    assert report["leftovers"] == 0
    assert report["files"] > 60
    assert report["seconds"] > 0


def verb_and_options(line: str) -> tuple[tuple[str, ...], frozenset[str]]:
    words = shlex.split(line)
    start = words.index("holdfast") + 1
    plain = [word for word in words[start:] if word.islower() and word.replace("-", "").isalpha()]
    depth = 3 if plain[:2] == ["hq", "token"] else 2
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    return tuple(plain[:depth]), frozenset(options - LEFT_TO_TASTE)


def test_operations_says_what_was_typed(played: tuple[dict[str, Any], list[str]]) -> None:
    """Every command of the section was typed with at least those options."""
    _, typed = played
    known = [verb_and_options(line) for line in typed]
    section = OPERATIONS.read_text().partition(SECTION)[2].partition("\n## ")[0]
    block = section.split("```")[1]
    lines = [line for line in block.splitlines() if line.startswith("holdfast ")]
    assert len(lines) >= 14
    for line in lines:
        verb, options = verb_and_options(line)
        assert any(verb == other and options <= given for other, given in known), line
