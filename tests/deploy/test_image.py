"""The image: built by buildah without a daemon, run by podman read-only, not root, unprivileged.

The base is a Debian made here by debootstrap, since no registry may be at hand. A node in such a
container joins a headquarters outside it by its token alone, serves, and is healthy.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hq.headquarters import Operator, run
from tests.rim.cloud.engine import Engine

from holdfast.hq.main import Headquarters
from holdfast.logic.fleet.model import Role
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port

pytestmark = pytest.mark.campaign
ROOT = Path(__file__).parents[2]
IMAGE = "holdfast-built:latest"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine("/var/tmp")  # a disk: the base and the image are half a gigabyte
    home = engine.home
    words = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    subprocess.run([*words, "bookworm", str(home / "base")], check=True, capture_output=True)
    subprocess.run(["tar", "-C", home / "base", "-cf", home / "base.tar", "."], check=True)
    shutil.rmtree(home / "base")
    engine.podman("import", str(home / "base.tar"), "holdfast-base:latest")
    (home / "base.tar").unlink()
    build = ["--isolation=chroot", "--build-arg=BASE=localhost/holdfast-base:latest"]
    build += [f"--file={ROOT / 'deploy' / 'Dockerfile'}", f"--tag={IMAGE}"]
    for name, value in os.environ.items():  # however this machine reaches its package index
        if name.startswith(("PIP_", "SSL_CERT")) and "FIND_LINKS" not in name:
            build.append(f"--env={name}={value}")
    certificates = Path("/etc/ssl/certs")
    engine.buildah("build", *build, f"--volume={certificates}:{certificates}:ro", str(ROOT))
    try:
        yield engine
    finally:
        engine.close()


def test_it_runs_shut_in(engine: Engine) -> None:
    shut = ["--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    shut += ["--network=none", "--tmpfs=/tmp"]
    assert engine.podman("run", *shut, IMAGE, "--version").strip()
    script = "import os; print(os.getuid(), os.access('/opt/holdfast', os.W_OK))"
    words = ["run", *shut, "--entrypoint=/opt/holdfast/bin/python", IMAGE, "-c", script]
    assert engine.podman(*words).split() == ["10001", "False"]


def test_a_node_joins_by_its_token_and_is_healthy(engine: Engine, tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        made = await operator.call(
            "POST", "/tokens", {"role": Role.RELAY, "region": "eu"}, dict[str, object]
        )
        port = free_port("127.0.0.1", SystemEntropy())
        words = ["run", "--detach", "--name=node", "--read-only", "--cap-drop=ALL"]
        words += ["--security-opt=no-new-privileges", "--network=host", "--tmpfs=/tmp"]
        words += [f"--env=HOLDFAST_JOIN_TOKEN={made['token']}", IMAGE]
        words += ["node", "run", f"--listen=127.0.0.1:{port}"]
        await asyncio.to_thread(engine.podman, *words)
        report: dict[str, object] = {}
        for _ in range(200):
            try:
                said = await asyncio.to_thread(
                    engine.podman, "exec", "node", "holdfast", "node", "status", "--json"
                )
            except AssertionError:
                await asyncio.sleep(0.2)
                continue
            report = json.loads(said.splitlines()[-1])
            if report["running"] and report["report"]["phase"] == "serving":  # type: ignore[index]
                break
            await asyncio.sleep(0.2)
        assert report["role"] == "relay"
        assert report["report"]["phase"] == "serving"  # type: ignore[index]

    run(scenario, tmp_path)
