"""A provider's real processes: daemon, agent, relay; headquarters is a stand-in over real TLS.

Seed 004 §5 (a server configures itself from one token), D8, D31.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.node.stand_in_hq import Serving, TestClock, stand_in
from tests.node.test_agent import serving_token, soon
from tests.node.test_machine import WANTED
from tests.rim.pki import Pki

from holdfast.errors import RETIRED_STATUS
from holdfast.logic.fleet.model import Role
from holdfast.rim import process as rim
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.daemon import DaemonFile
from holdfast.rim.cloud.process import ProcessCloud
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port, free_subnets
from holdfast.wire.cloud import CreateServer

pytestmark = pytest.mark.system
CLOCK = SystemClock()


class Provider:
    """A real `holdfast provider serve` on a free subnet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port("127.0.0.1", SystemEntropy())
        (self.subnet,) = free_subnets(1, self.port, SystemEntropy())
        self._child: rim.Child[Any] | None = None

    async def __aenter__(self) -> Provider:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Whatever a failed test leaves behind would fail the ones after it too."""
        if self._child is not None:
            rim.kill_group(self._child.pid)

    async def start(self) -> ProcessCloud:
        command = rim.holdfast_command(
            *("provider", "serve", f"--dir={self.directory}", "--name=alder"),
            *(f"--subnet={self.subnet}", f"--node-port={self.port}"),
        )
        log = self.directory.with_suffix(".log")
        self._child = await rim.spawn(command, log=log, own_session=True)
        await soon((self.directory / "daemon.json").exists, 30)
        about = msgspec.json.decode((self.directory / "daemon.json").read_bytes(), type=DaemonFile)
        return ProcessCloud(about.listen, (self.directory / "key").read_text(), CLOCK)

    async def stop(self) -> None:
        assert self._child is not None
        assert await self._child.stop(CLOCK, 20) == 0

    async def lose(self) -> None:
        """The loss of the provider: SIGKILL to its process group."""
        assert self._child is not None
        rim.kill_group(self._child.pid)
        await self._child.wait()
        child = self._child
        await soon(lambda: not rim.group_members(child.pid))

    @property
    def members(self) -> tuple[int, ...]:
        assert self._child is not None
        return rim.group_members(self._child.pid)

    def verbs(self, name: str) -> list[str]:
        lines = (self.directory / "events.jsonl").read_bytes().splitlines()
        events = [msgspec.json.decode(line) for line in lines]
        return [event["verb"] for event in events if event["name"] == name]

    def console(self, name: str) -> str:
        path = self.directory / "servers" / name / "console.log"
        return path.read_text() if path.exists() else ""


async def join_one(cloud: ProcessCloud, serving: Serving, name: str = "i1") -> None:
    """Order a server with a token in its user data, and wait for its first heartbeat."""
    beats = len(serving.hq.heartbeats)
    await cloud.create(CreateServer(name, "eu", str(serving_token(serving))))
    await soon(lambda: len(serving.hq.heartbeats) > beats, 40)


def roles_below(pids: tuple[int, ...]) -> list[int]:
    """Those of `pids` that run `relay serve`."""
    found = []
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended since
        if b"relay" in words and b"serve" in words:
            found.append(pid)
    return found


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with CLOCK.real_timeout(120):
            await work

    asyncio.run(main())


def wall_pki() -> tuple[TestClock, Pki]:
    """A network whose certificates are valid today: the processes read the real clock."""
    return TestClock(CLOCK.wall()), Pki(now=CLOCK.wall())


def test_a_server_makes_itself_from_one_token_and_survives_its_role(tmp_path: Path) -> None:
    async def main() -> None:
        clock, pki = wall_pki()
        async with stand_in(clock, pki) as serving, Provider(tmp_path / "alder") as provider:
            cloud = await provider.start()
            await join_one(cloud, serving)
            home = provider.directory / "servers" / "i1"
            beat = serving.hq.heartbeats[-1]
            assert beat.addresses == (f"{provider.subnet}.0.1:{provider.port}",)
            assert beat.load.writable
            assert not (home / "token").exists(), "a spent token is removed"
            secret = str(serving_token(serving))
            assert secret not in provider.console("i1")

            (role,) = roles_below(provider.members)
            os.kill(role, signal.SIGKILL)
            await soon(lambda: roles_below(provider.members) not in ([], [role]), 20)
            assert provider.verbs("i1") == ["create"], "the agent lived on"

            serving.hq.want(replace(WANTED, name="relay-eu-001", retired=True))
            await soon(lambda: f"exit {RETIRED_STATUS}" in provider.verbs("i1"), 20)
            await soon(lambda: len(provider.members) == 1)
            assert len(serving.hq.joins) == 1
            await provider.stop()

    run(main())


def test_the_loss_of_a_provider_and_its_return(tmp_path: Path) -> None:
    """D31: SIGKILL to the daemon's group is the loss; a new daemon brings the same nodes back."""

    async def main() -> None:
        clock, pki = wall_pki()
        async with stand_in(clock, pki) as serving, Provider(tmp_path / "alder") as provider:
            cloud = await provider.start()
            await join_one(cloud, serving)
            serving.hq.want(replace(WANTED, name="relay-eu-001", role=Role.RELAY))
            await soon(lambda: serving.hq.heartbeats[-1].desired == WANTED.version)
            serial = serving.hq.heartbeats[-1].cert_serial
            await provider.lose()
            await serving.away()
            beats = len(serving.hq.heartbeats)

            await provider.start()
            await soon(lambda: bool(roles_below(provider.members)), 30)
            await soon(lambda: provider.console("i1").count("serving at") == 2, 30)
            await serving.back()
            await soon(lambda: len(serving.hq.heartbeats) > beats, 60)
            beat = serving.hq.heartbeats[-1]
            assert (beat.cert_serial, beat.desired) == (serial, WANTED.version)
            assert len(serving.hq.joins) == 1
            members = provider.members
            await provider.stop()
            assert not any(map(rim.alive, members)), "a clean stop leaves nobody behind"

    run(main())


async def said(*words: str) -> tuple[int, dict[str, Any]]:
    """Status and last JSON line of a verb."""
    process = await asyncio.create_subprocess_exec(
        *rim.holdfast_command(*words, "--json"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, msgspec.json.decode(out.splitlines()[-1])


def test_the_verbs_of_a_server_owner(tmp_path: Path) -> None:
    """Join by hand, look, run, look, ask to leave: every answer names the next step."""

    async def main() -> None:
        clock, pki = wall_pki()
        async with stand_in(clock, pki) as serving:
            home = f"--dir={tmp_path / 'node'}"
            status, answer = await said("node", "status", home)
            assert status == 2
            assert "node join" in answer["next"]
            token = str(serving_token(serving))
            status, answer = await said("node", "join", token[:-1], home)
            assert status == 2
            assert "ask for a new one" in answer["next"]

            (tmp_path / "token").write_text(token + "\n")
            port = free_port("127.0.0.1", SystemEntropy())
            status, joined = await said(
                *("node", "join", str(tmp_path / "token"), home, f"--listen=127.0.0.1:{port}")
            )
            assert (status, joined["name"]) == (0, "relay-eu-001")
            status, answer = await said("node", "join", token, home)
            assert status == 2
            assert "joined already" in answer["message"]
            status, answer = await said("node", "status", home)
            assert (status, answer["running"], answer["node"]) == (1, False, joined["node"])

            command = rim.holdfast_command("node", "run", home)
            child: rim.Child[Any] = await rim.spawn(command, log=tmp_path / "log")
            await soon(lambda: bool(serving.hq.heartbeats), 30)
            assert serving.hq.heartbeats[-1].addresses == (f"127.0.0.1:{port}",)
            status, answer = await said("node", "status", home)
            assert (status, answer["report"]["phase"]) == (0, "serving")
            assert answer["report"]["certificate"] == "fresh"
            second: rim.Child[Any] = await rim.spawn(command, log=tmp_path / "second")
            assert await second.wait() == 2
            assert "already runs" in (tmp_path / "second").read_text()

            status, answer = await said("node", "leave", home, "--reason=moving house")
            assert (status, answer["leaving"]) == (0, True)
            assert [request.reason for request in serving.hq.leaves] == ["moving house"]
            assert await child.stop(CLOCK, 20) == 0
            assert (await said("node", "status", home))[0] == 1

    run(main())
