"""systemd units that systemd accepts, and an uninstall after which nothing of ours is left."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.small_network import CAGE, SmallNetwork, holdfast

from holdfast.cli.homes import Kind, kind_of, ours
from holdfast.errors import UsageError

pytestmark = pytest.mark.system
EXPOSURE_MAX = 2.0
"""systemd's own scale from 0 to 10; it calls up to 2.0 OK, a plain service is 9.6 UNSAFE."""
DAEMON = 1


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallNetwork]:
    made = SmallNetwork(tmp_path_factory.mktemp("units"))
    made.under = CAGE
    try:
        made.found()
        yield made
    finally:
        made.stop_all()


@pytest.fixture(scope="module")
def device(network: SmallNetwork) -> Path:
    """A device's directory, as far as its unit is concerned: it needs a slot to be a real one."""
    place = network.base / "device"
    place.mkdir(mode=0o700)
    (place / "device.key").write_bytes(bytes(32))
    return place


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["hq", "relay"])
def test_systemd_takes_the_unit_and_calls_it_safe(
    network: SmallNetwork, name: str, tmp_path: Path
) -> None:
    directory = network.base / name
    os.chown(directory, DAEMON, DAEMON)
    try:
        written = holdfast(
            "service", "install", "--dir", str(directory), "--units", str(tmp_path), "--no-start"
        )
    finally:
        os.chown(directory, 0, 0)
        (directory / "service.json").unlink()
    unit = Path(written["unit"])
    verified = analyze("verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = analyze("security", "--offline=true", "--json=short", str(unit))
    assert judged.returncode == 0, judged.stderr
    overall = analyze("security", "--offline=true", str(unit)).stdout.splitlines()[-1]
    exposure = float(overall.split(":")[1].split()[0])
    assert exposure <= EXPOSURE_MAX, overall
    text = unit.read_text()
    assert "User=daemon" in text
    assert f'ReadWritePaths="{directory}"' in text
    assert "RestartPreventExitStatus=10" in text


def test_everything_serves_without_privileges(network: SmallNetwork) -> None:
    """The processes of this module run in the cage."""
    for process in network.processes.values():
        state = Path(f"/proc/{process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in state
        assert "CapBnd:\t0000000000000000" in state
    assert network.serves(network.relay)
    assert network.serves(network.replica)


def test_a_bare_unit_would_not_pass(tmp_path: Path) -> None:
    """The judge above is no rubber stamp."""
    unit = tmp_path / "bare.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    overall = analyze("security", "--offline=true", str(unit)).stdout.splitlines()[-1]
    assert float(overall.split(":")[1].split()[0]) > 9
    unit.write_text("[Service]\nExecStart=/no/such/program\n")
    assert analyze("verify", "--man=no", str(unit)).returncode != 0


def test_a_device_belongs_to_a_persons_own_manager(device: Path, tmp_path: Path) -> None:
    written = holdfast(
        "service", "install", "--dir", str(device), "--units", str(tmp_path / "user"), "--no-start"
    )
    verified = analyze("--user", "verify", "--man=no", written["unit"])
    assert "holdfast" not in verified.stderr
    text = Path(written["unit"]).read_text()
    assert "folder sync --watch" in text
    assert "User=" not in text
    assert "WantedBy=default.target" in text


def test_nothing_runs_as_root(network: SmallNetwork) -> None:
    found = holdfast("service", "unit", "--dir", str(network.relay), status=2)
    assert "useradd" in found["message"]


def test_a_running_node_is_not_uninstalled(network: SmallNetwork) -> None:
    found = holdfast("uninstall", "--dir", str(network.replica), "--yes", status=2)
    assert "stop it first" in found["message"]
    assert (network.replica / "identity.key").exists()


def test_it_asks_and_takes_silence_for_no(network: SmallNetwork) -> None:
    network.stop(network.replica)
    found = holdfast("uninstall", "--dir", str(network.replica), status=2)
    assert "--yes" in found["message"]
    assert (network.replica / "identity.key").exists()


def test_exactly_what_was_made_goes(network: SmallNetwork, tmp_path: Path) -> None:
    """The unit, every file and the directory; a stranger's file keeps the directory there."""
    os.chown(network.relay, DAEMON, DAEMON)
    made = holdfast(
        "service", "install", "--dir", str(network.relay), "--units", str(tmp_path), "--no-start"
    )
    network.stop(network.relay)
    os.chown(network.relay, 0, 0)
    (network.relay / "notes.txt").write_text("mine")
    found = holdfast("uninstall", "--dir", str(network.relay), "--yes")
    assert found["kept"] == [str(network.relay / "notes.txt")]
    assert [path.name for path in network.relay.iterdir()] == ["notes.txt"]
    assert not Path(made["unit"]).exists()
    assert list(tmp_path.iterdir()) == []
    found = holdfast("uninstall", "--dir", str(network.replica), "--yes")
    assert found["directory_left"] is False
    assert not network.replica.exists()
    network.stop(network.hq)
    holdfast("uninstall", "--dir", str(network.hq), "--yes")
    assert not network.hq.exists()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all I have")
    found = holdfast("uninstall", "--dir", str(tmp_path), "--yes", status=2)
    assert "no headquarters, node or device" in found["message"]
    with pytest.raises(UsageError):
        kind_of(tmp_path)


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    home, other = tmp_path / "node", tmp_path / "precious"
    other.mkdir()
    (other / "file").write_text("x")
    home.mkdir()
    (home / "member.json").write_text(json.dumps({}))
    (home / "role").symlink_to(other)
    assert list(ours(home, Kind.NODE)) == [home / "member.json", home / "role"]
