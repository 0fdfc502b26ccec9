"""Any request from any core, and a cluster out of the ashes (seed 000), at a small size."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from holdfast.rim.process import holdfast_command
from holdfast.sim.drills.answers import different, moving, plain

pytestmark = pytest.mark.system
FULL = pytest.mark.campaign


def played(*words: str, timeout_s: float) -> dict[str, Any]:
    command = holdfast_command("drill", *words, "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize(
    ("cores", "calls"), [(3, 20), pytest.param(5, 200, marks=FULL)], ids=("small", "full")
)
def test_seed0_any_request_is_handled_from_any_core(cores: int, calls: int) -> None:
    """ "any request is handled from any core node, and the network survives the loss of some"."""
    report = played("any-core", f"--cores={cores}", f"--calls={calls}", timeout_s=900)
    assert report["cores"] == cores
    assert report["verbs_missing"] == []
    assert report["verbs_read"] + report["verbs_changed"] + report["verbs_refused_alike"] >= 42
    assert report["answers_equal"] is True
    assert report["changes_unseen"] == 0
    assert report["strangers_refused"] is True
    assert report["requests"] >= 3 * calls
    assert report["failed_requests"] == report["done_twice"] == report["lost"] == 0
    assert report["reads_from_copy"] is True
    assert report["phoenix"] is True


@pytest.mark.parametrize(
    ("clients", "cores"), [(2, 1), pytest.param(6, 3, marks=FULL)], ids=("small", "full")
)
def test_seed0_like_a_phoenix_from_the_ashes(clients: int, cores: int) -> None:
    """The disks go first; the other cluster's client notices nothing."""
    report = played("phoenix", f"--clients={clients}", f"--cores={cores}", timeout_s=900)
    assert report["clients_back"] == report["clients"] == clients
    assert report["machines_lost"] == report["machines_again"] == report["found_gone"] == cores + 1
    assert report["disks_gone"] == cores + 1 + 3
    assert report["nodes_told"] == 2
    assert report["old_way_dead"] is True
    assert report["devices_lost"] == report["others_failed"] == 0
    assert report["others_requests"] > 10


def test_a_difference_is_seen_and_what_moves_is_not_one() -> None:
    before, after = b'{"at":1,"rows":[{"n":1}]}', b'{"at":2,"rows":[{"n":1}]}'
    apart = moving(before, after)
    assert apart == {".at"}
    assert different(before, b'{"at":9,"rows":[{"n":1}]}', apart) == ()
    assert different(before, b'{"at":9,"rows":[{"n":2}]}', apart) == (".rows.0.n",)
    assert different(before, b'{"at":1,"rows":[]}', apart) == (".rows#", ".rows.0.n")
    assert plain(".rows.0.n") == "rows.n"
