"""`holdfast doctor` on real processes, each fault really planted (item 6 of the pool's hands)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.small_network import SmallNetwork, faked, holdfast

pytestmark = pytest.mark.system
Found = dict[str, Any]


@pytest.fixture(scope="module")
def network() -> Iterator[SmallNetwork]:
    """On a real disk: /tmp may be memory, which the doctor would rightly complain of."""
    with tempfile.TemporaryDirectory(prefix="holdfast-doctor-", dir="/var/tmp") as base:
        made = SmallNetwork(Path(base))
        try:
            made.found()
            yield made
        finally:
            made.stop_all()


def doctor(directory: Path, **how: Any) -> Found:
    return holdfast("doctor", "--dir", str(directory), status=None, **how)


def bad(found: Found) -> dict[str, Found]:
    """What needs a person, by check; every one says what to do, and the status tells."""
    items = {f["check"]: f for f in found["findings"] if f["level"] == "bad"}
    assert all(item["next"] for item in items.values())
    assert found["status"] == (1 if items else 0)
    assert found["ok"] is (not items)
    return items


def test_a_node_that_is_well(network: SmallNetwork) -> None:
    found = doctor(network.relay)
    assert bad(found) == {}
    checks = {f["check"]: f for f in found["findings"]}
    assert {"agent", "disk", "fsync", "permissions", "descriptors", "certificate"} <= set(checks)
    assert {"roots", "public port", "revocations", "own port", "dns", "clock"} <= set(checks)
    link = next(f for f in found["findings"] if f["check"] == "link")
    assert "X25519MLKEM768" in link["text"]


def test_a_headquarters_without_enough_servers(network: SmallNetwork) -> None:
    found = bad(doctor(network.hq))
    assert set(found) == {"slots"}
    assert "token create" in found["slots"]["next"]


@pytest.mark.parametrize("offset", ["+30m", "-30m"])
def test_a_clock_that_is_wrong(network: SmallNetwork, offset: str) -> None:
    found = bad(doctor(network.relay, env=faked(offset)))
    assert ("ahead" if offset[0] == "+" else "behind") in found["clock"]["text"]


def test_a_clock_so_wrong_that_no_certificate_holds(network: SmallNetwork) -> None:
    """It cannot verify anybody; that its own clock is why must still come out."""
    found = bad(doctor(network.relay, env=faked("-3h")))
    assert {"link"} <= set(found)


def test_a_certificate_that_nobody_renewed(network: SmallNetwork) -> None:
    assert "certificate" in bad(doctor(network.relay, env=faked("+50d")))
    found = bad(doctor(network.relay, env=faked("+95d")))
    assert "expired" in found["certificate"]["text"]
    assert "days ago" in found["revocations"]["text"]


def test_secrets_that_others_can_read(network: SmallNetwork) -> None:
    key = network.relay / "identity.key"
    key.chmod(0o644)
    try:
        found = bad(doctor(network.relay))
    finally:
        key.chmod(0o600)
    assert set(found) == {"permissions"}
    assert f"chmod go= {key}" in found["permissions"]["next"]


def test_too_few_descriptors(network: SmallNetwork) -> None:
    """Of the process that serves, not of the doctor's."""
    (role,) = _children(network.processes[network.relay].pid)
    subprocess.run(["prlimit", f"--pid={role}", "--nofile=900:20000"], check=True)
    try:
        found = bad(doctor(network.relay))
    finally:
        subprocess.run(["prlimit", f"--pid={role}", "--nofile=20000:20000"], check=True)
    assert set(found) == {"descriptors"}


@pytest.mark.parametrize(
    ("inject", "check", "words"),
    [
        ("fdatasync:error=EIO", "disk", "Input/output error"),
        ("fdatasync:delay_enter=700000", "fsync", "a synced write takes"),
        ("write:error=ENOSPC", "disk", "No space left"),
    ],
)
def test_a_disk_that_is_ill(network: SmallNetwork, inject: str, check: str, words: str) -> None:
    """The kernel's answers are tampered with by strace, for files of the node alone."""
    path = network.relay / ".doctor.new"
    call = inject.partition(":")[0]
    log = network.base / "strace.log"
    under = ("strace", "-f", "-qq", "-o", str(log), "-P", str(path), "-e", f"trace={call}")
    found = bad(doctor(network.relay, under=(*under, "-e", f"inject={inject}")))
    assert words in found[check]["text"], found


def test_a_directory_in_memory(network: SmallNetwork) -> None:
    """A copy on a tmpfs: gone after a power cut."""
    place = network.base / "memory"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(place)]
    subprocess.run(mount, check=True)
    try:
        shutil.copytree(network.relay, place / "node", symlinks=True, ignore=_no_store)
        found = bad(doctor(place / "node"))
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
    assert "tmpfs" in found["fsync"]["text"]
    assert "make room" in found["disk"]["next"]


def test_dns_that_says_otherwise(network: SmallNetwork) -> None:
    """The node tells clients another address than the one that headquarters wrote."""
    file = network.relay / "member.json"
    kept = file.read_bytes()
    member = json.loads(kept)
    file.write_text(json.dumps({**member, "addresses": ["127.0.0.1:9"]}))
    try:
        found = doctor(network.relay)
    finally:
        file.write_bytes(kept)
    assert "127.0.0.1:9" in bad(found)["dns"]["text"]
    assert "own port" in {f["check"] for f in found["findings"] if f["level"] == "note"}


def test_a_root_of_another_network(network: SmallNetwork, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("six words that nobody guesses here\n")
    words = ("--passphrase-file", str(tmp_path / "words"))
    holdfast("root", "create", "--out", str(tmp_path / "root"), *words)
    pinned = network.relay / "roots.pem"
    kept = pinned.read_bytes()
    pinned.write_bytes((tmp_path / "root" / "root.crt").read_bytes())
    try:
        found = bad(doctor(network.relay))
    finally:
        pinned.write_bytes(kept)
    assert {"link", "roots"} <= set(found)


def test_everything_off(network: SmallNetwork) -> None:
    """Last: nothing runs any more, and the doctor still comes."""
    network.stop_all()
    found = bad(doctor(network.relay))
    assert {"agent", "link", "dns"} <= set(found)
    assert "holdfast node run" in found["agent"]["next"]
    assert "process" in bad(doctor(network.hq))


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _no_store(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "role"]
