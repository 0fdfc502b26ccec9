"""A stolen headquarters misleads nobody who wants witnesses (issue 4; D1, D4)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.main import run
from holdfast.sim.drills.rogue_hq import RogueReport


@pytest.mark.system
def test_nobody_is_misled_but_those_who_trust_headquarters_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = run(["drill", "rogue-hq", "--clients", "2", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0, found
    assert (found["clients_misled"], found["control_misled"]) == (0, 2)
    assert (found["refused"], found["stored"]) == (2, 2)
    assert found["witnesses"] >= 1
    assert found["rogue_witness_set_followed"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients_misled": 1},
        {"control_misled": 1},
        {"witnesses": 0},
        {"refused": 1},
        {"stored": 1},
        {"rogue_witness_set_followed": 1},
    ],
)
def test_one_wrong_figure_is_enough(wrong: dict[str, int]) -> None:
    good = RogueReport(
        clients=2,
        clients_misled=0,
        refused=2,
        stored=2,
        control_clients=2,
        control_misled=2,
        witnesses=1,
    )
    assert good.held
    figures = {name: getattr(good, name) for name in good.__struct_fields__}
    assert not RogueReport(**(figures | wrong)).held
