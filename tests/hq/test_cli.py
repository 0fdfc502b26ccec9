"""`holdfast hq` as an operator types it: two machines' ceremony, a real process, an audit program
outside HQ (seed 004 §5)."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from holdfast.hq.home import HqHome
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port
from holdfast.wire.locator import parse_locator

PYTHON = (sys.executable, "-m", "holdfast")
pytestmark = pytest.mark.system


def holdfast(*words: str, status: int = 0) -> dict[str, Any]:
    """Run one command with --json; its last line."""
    done = subprocess.run([*PYTHON, *words, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


serving: list[subprocess.Popen[str]] = []
"""The process of the fixture; the last test puts another one in its place."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A headquarters set up by commands alone, serving in its own process."""
    base = tmp_path_factory.mktemp("hq")
    (base / "passphrase").write_text("six words that nobody guesses here\n")
    passphrase = ("--passphrase-file", str(base / "passphrase"))
    holdfast("root", "create", "--out", str(base / "root"), *passphrase)
    entropy = SystemEntropy()
    api, dns = free_port("127.0.0.1", entropy), free_port("127.0.0.1", entropy)
    made = holdfast(
        "hq", "init", "--dir", str(base / "hq"), "--root-cert", str(base / "root" / "root.crt"),
        "--listen", f"127.0.0.1:{api}", "--dns-listen", f"127.0.0.1:{dns}",
        "--regions", "eu,ap", "--admission", "approve",
    )  # fmt: skip
    signed = holdfast(
        "root", "issue-intermediate", "--root", str(base / "root"), "--hq-request",
        made["request_file"], "--out", str(base / "hq.crt"), *passphrase,
    )  # fmt: skip
    assert signed["identity"] == made["identity"]
    holdfast("hq", "install", str(base / "hq.crt"), "--dir", str(base / "hq"))
    serving.append(start(base / "hq"))
    yield base / "hq"
    stop(serving.pop())
    assert not (base / "hq" / "admin.json").exists()


def start(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*PYTHON, "hq", "serve", "--dir", str(directory)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("headquarters serves at")
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()


def hq(home: Path, *words: str, status: int = 0) -> dict[str, Any]:
    return holdfast("hq", *words, "--dir", str(home), status=status)


def test_looking(home: Path) -> None:
    status = hq(home, "status")
    assert (status["domain"], status["admission"]) == ("holdfast.internal", "approve")
    assert hq(home, "applications")["items"] == []
    assert hq(home, "page")["url"].startswith("http://127.0.0.1:")
    assert hq(home, "slots")["slots"] == []
    assert hq(home, "servers")["servers"] == []


def test_tokens(home: Path) -> None:
    made = hq(home, "token", "create", "--role", "relay", "--region", "ap", "--owner", "ada")
    assert made["token"].startswith("hfjoin1")
    listed = hq(home, "token", "list")["items"]
    (item,) = [item for item in listed if item["hash"] == made["hash"]]
    assert (item["name"], item["owner"], item["used_by"]) == (made["name"], "ada", "")
    assert made["token"] not in json.dumps(listed)
    hq(home, "token", "revoke", made["hash"])
    assert hq(home, "token", "revoke", made["hash"], status=2)["error"] == "UsageError"
    words = ("token", "create", "--role", "relay", "--region", "eu", "--hours", "25")
    assert "24 hours" in hq(home, *words, status=2)["message"]


def test_usage_is_told_as_such(home: Path) -> None:
    assert "no node" in hq(home, "revoke", "--node", "a" * 52, "--reason", "x", status=2)["message"]
    words = ("decline", "nobody", "--reason", "x")
    assert "no such application" in hq(home, *words, status=2)["message"]
    assert holdfast("hq", "status", "--dir", str(home / "none"), status=2)["next"]


def test_two_do_not_serve_one_directory(home: Path) -> None:
    words = [*PYTHON, "hq", "serve", "--dir", str(home)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "already runs" in done.stderr


def test_the_chain_is_checked_by_a_program_outside(home: Path, tmp_path: Path) -> None:
    """JSON, base64 and BLAKE3 are all it needs; a changed byte, a cut end and a kept head show."""
    verdict = hq(home, "audit", "verify")
    assert verdict["ok"]
    head = f"{verdict['sequence']}:{verdict['hash']}"
    export = tmp_path / "audit.jsonl"
    words = [*PYTHON, "hq", "audit", "export", "--dir", str(home), "--out", str(export)]
    subprocess.run(words, check=True, timeout=60)
    lines = [json.loads(line) for line in export.read_text().splitlines()]
    previous = "00" * 32
    for line in lines:
        assert line["previous"] == previous
        previous = blake3(base64.b64decode(line["row"])).hexdigest()
        assert line["hash"] == previous
    assert holdfast("hq", "audit", "verify", "--export", str(export), "--head", head)["ok"]
    cut = tmp_path / "cut.jsonl"
    cut.write_text("\n".join(export.read_text().splitlines()[:-1]))
    assert holdfast("hq", "audit", "verify", "--export", str(cut))["ok"]
    found = holdfast("hq", "audit", "verify", "--export", str(cut), "--head", head, status=1)
    assert not found["ok"]
    row = bytearray(base64.b64decode(lines[0]["row"]))
    row[-1] ^= 1
    lines[0]["row"] = base64.b64encode(row).decode()
    export.write_text("\n".join(map(json.dumps, lines)))
    assert not holdfast("hq", "audit", "verify", "--export", str(export), status=1)["ok"]
    export.write_text("not an export\n")
    assert holdfast("hq", "audit", "verify", "--export", str(export), status=2)["error"]


def test_snapshots_go_only_where_something_is(home: Path, tmp_path: Path) -> None:
    """A mount that is missing, a region that nobody has: told before headquarters relies on it."""
    key = holdfast("hq", "snapshots", "key", str(tmp_path / "key"))["recipient"]
    words = ("snapshots", "set", "--recipient", key)
    refused = hq(home, *words, "--directory", str(tmp_path / "mount"), status=2)
    assert "no directory" in refused["message"]
    assert "eu, ap" in hq(home, *words, "--pool-region", "us", status=2)["message"]
    (home / "kept").mkdir()
    before = (home / "hq.json").read_bytes()
    assert hq(home, *words, "--directory", "kept")["directories"] == ["kept"]
    assert "restart headquarters" in hq(home, "snapshots", "status", status=2)["message"]
    (home / "hq.json").write_bytes(before)


def test_kill_and_restart(home: Path) -> None:
    """SIGKILL: the next start serves the same network, leads with a higher term, one chain."""
    before = hq(home, "status")
    made = hq(home, "token", "create", "--role", "replica", "--region", "eu")
    killed = serving.pop()
    assert HqHome(home).admin().pid == killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(20)
    assert killed.stdout is not None
    killed.stdout.close()
    serving.append(start(home))
    after = hq(home, "status")
    assert (after["network"], after["node"]) == (before["network"], before["node"])
    assert after["audit_sequence"] > before["audit_sequence"]
    hashes = [item["hash"] for item in hq(home, "token", "list")["items"]]
    assert made["hash"] in hashes
    assert hq(home, "audit", "verify")["ok"]


def test_a_headquarters_that_cannot_listen_says_why(home: Path) -> None:
    """The first fault is the one that is shown, not what follows from it."""
    config = home / "hq.json"
    kept = config.read_bytes()
    stop(serving.pop())
    config.write_text(json.dumps({**json.loads(kept), "listen": "203.0.113.77:7400"}))
    done = subprocess.run(
        [*PYTHON, "hq", "serve", "--dir", str(home)], capture_output=True, text=True, timeout=60
    )
    config.write_bytes(kept)
    serving.append(start(home))
    assert done.returncode == 4, done.stderr
    assert "cannot listen on 203.0.113.77:7400" in done.stderr.splitlines()[-1]


def test_an_address_that_nobody_can_dial_is_refused(home: Path, tmp_path: Path) -> None:
    """0.0.0.0 is where one listens, never what others are told."""
    root = home.parent / "root" / "root.crt"
    init = ("hq", "init", "--dir", str(tmp_path / "hq"), "--root-cert", str(root))
    found = holdfast(*init, "--listen", "0.0.0.0:7400", status=2)
    assert "--host" in found["message"]
    assert not (tmp_path / "hq").exists()
    holdfast(*init, "--host", "203.0.113.10")
    config = json.loads((tmp_path / "hq" / "hq.json").read_bytes())
    assert (config["listen"], config["addresses"]) == ("0.0.0.0:7400", ["203.0.113.10:7400"])
    assert config["dns_addresses"] == ["203.0.113.10:7453"]
    line = holdfast("hq", "locator", "--dir", str(tmp_path / "hq"))["locator"]
    locator = parse_locator(line)
    assert (locator.hq, locator.slot) == (("203.0.113.10:7400",), b"")
