"""PROTOCOL.md is enough to build a client: one that was built from it meets real servers.

The client runs outside the repository, in a virtual environment that has its three requirements and
nothing of Holdfast.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.relay.harness import Pool, Server

from holdfast.crypto.certinfo import to_pem

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors"
SERVERS = ("relay-eu-001", "replica-eu-001")


@dataclass(frozen=True)
class Stranger:
    """A Python that has never seen Holdfast, and a directory with the client's modules."""

    python: Path
    home: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run this Python with only what it needs of our environment."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.home,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def json(self, module: str, *arguments: str) -> dict[str, Any]:
        """The one line a module prints."""
        done = self.run("-m", module, *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    home = tmp_path_factory.mktemp("stranger")
    (home / "second_client").mkdir()
    for file in HERE.iterdir():
        if file.is_file() and file != Path(__file__):
            shutil.copy(file, home / "second_client")
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    one = Stranger(home / "venv" / "bin" / "python", home)
    wanted = ("-r", "second_client/requirements.txt")
    installed = one.run("-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted)
    assert installed.returncode == 0, installed.stderr
    return one


def test_the_stranger_has_no_holdfast(stranger: Stranger) -> None:
    done = stranger.run("-c", "import holdfast")
    assert done.returncode != 0
    assert "No module named 'holdfast'" in done.stderr
    assert stranger.run("-c", "import msgspec").returncode != 0


def test_every_vector_comes_out_the_same(stranger: Stranger) -> None:
    found = stranger.json("second_client.check_vectors", str(VECTORS))
    files = {file.stem: len(json.loads(file.read_bytes())) for file in VECTORS.glob("*.json")}
    assert found["vectors"] == files
    assert found["checks"] > sum(files.values())


def named(server: Server) -> dict[str, str]:
    """What a client is told about a server."""
    node = base64.b32encode(server.node).decode().rstrip("=").lower()
    return {"address": server.seat.addresses[0], "node": node, "role": str(server.role)}


async def meet(stranger: Stranger, home: Path, me: str, other: str) -> dict[str, dict[str, Any]]:
    """Every mode of the client, one after the other, at one server of a real slot."""
    async with Pool(home) as pool:
        record = await pool.seat(relays=1, replicas=1)
        root, config = stranger.home / "root.pem", stranger.home / "config.json"
        root.write_bytes(to_pem(pool.roots))
        about = {
            **named(pool.servers[me]),
            "other": named(pool.servers[other]),
            "root": str(root),
            "network": pool.network.hex(),
            "slot": record.slot.hex(),
            "era_secret": os.urandom(32).hex(),
            "era_number": 7,
        }
        config.write_text(json.dumps(about))
        return {
            mode: await asyncio.to_thread(stranger.json, "second_client", str(config), mode)
            for mode in ("push", "pull", "errors")
        }


@pytest.mark.parametrize(("me", "other"), [SERVERS, SERVERS[::-1]])
def test_a_client_built_from_the_page(
    stranger: Stranger, tmp_path: Path, me: str, other: str
) -> None:
    found = asyncio.run(meet(stranger, tmp_path, me, other))
    push, pull, held = found["push"], found["pull"], found["errors"]["held"]
    assert push["pushed"] == 9
    assert push["receipts"] == 18  # everything twice: the second time a receipt of a duplicate
    assert push["sequences"] == list(range(1, 10))
    assert push["record"] == list(SERVERS)
    assert pull["pulled"] == pull["opened"] == pull["listed"] == 9
    assert pull["bytes"] > 1 << 20
    assert len(held) == len(set(held)) == 35
    assert {"no such session", "a push to another tag", "a tampered blob"} <= set(held)
    assert {"a replayed proof", "a forged sequence", "another node"} <= set(held)
