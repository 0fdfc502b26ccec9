"""`holdfast up` as a person runs it: starts, restarts with its state, leaves nothing behind.

Everything is seen from outside: the command's own output, signals, /proc, dig, the providers' logs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.node.test_agent import soon

from holdfast.cli.local import LocalNetwork, StartFault
from holdfast.cli.local_files import load_settings, network_file
from holdfast.cli.local_hq import HQ
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import make_private_directory
from holdfast.rim.process import alive, descendants, group_members, holdfast_command
from holdfast.wire.locator import parse_locator

pytestmark = pytest.mark.system
SERVERS = 12
START_S = 180.0
CLOCK = SystemClock()


class Up:
    """One `holdfast up` process and everything that it starts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[str] | None = None
        self.seen: set[int] = set()

    def start(self, *words: str) -> None:
        command = holdfast_command("up", f"--dir={self.directory}", "--json", *words)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    async def ready(self) -> dict[str, Any]:
        """The JSON line that says that the network is up."""
        async with CLOCK.real_timeout(START_S):
            assert self.process.stdout is not None
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, self.process.communicate()[1][-3000:]
        self.note()
        found: dict[str, Any] = json.loads(line)
        return found

    def note(self) -> None:
        """Remember every process that belongs to us, wherever it may go."""
        self.seen |= {self.process.pid, *descendants(self.process.pid)}

    async def ended(self) -> int:
        self.note()
        async with CLOCK.real_timeout(60):
            return await asyncio.to_thread(self.process.wait)

    def left(self) -> list[int]:
        return [pid for pid in self.seen if alive(pid)]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    network = Up(tmp_path / "network")
    yield network
    if network._process is not None and network._process.poll() is None:
        network._process.kill()
        network._process.wait()


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with CLOCK.real_timeout(400):
            await work

    asyncio.run(main())


async def said(*words: str) -> tuple[int, dict[str, Any]]:
    """Status and last JSON line of a verb."""
    command = holdfast_command(*words, "--json")
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def dig(about: dict[str, Any], *question: str) -> list[str]:
    host, _, port = about["dns"].rpartition(":")
    command = ["dig", "+short", "+tries=1", "+time=5", f"@{host}", "-p", port, *question]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def serials(directory: Path) -> set[str]:
    """Serials of the certificates on the servers' own disks."""
    chains = directory.glob("providers/*/servers/*/tls/current")
    return {os.readlink(path) for path in chains}


def created(directory: Path) -> int:
    """How many servers the providers' own logs say were ordered."""
    lines = [
        line
        for path in directory.glob("providers/*/events.jsonl")
        for line in path.read_text().splitlines()
    ]
    return sum(json.loads(line)["verb"] == "create" for line in lines)


def test_up_runs_a_network_and_survives_restart_with_its_state(up: Up) -> None:
    async def main() -> None:
        up.start()
        about = await up.ready()
        assert (about["servers"], len(about["providers"])) == (SERVERS, 3)
        assert about["slots"] > 0
        assert parse_locator(about["locator"]).network.hex() == about["network"]
        name = f"relay-eu-001.{about['domain']}"
        (address,) = dig(about, name, "A")
        assert address.startswith("127.")
        (*_, port, target) = dig(about, f"_holdfast._tcp.{name}", "SRV")
        assert target == f"{name}."
        socket.create_connection((address, int(port)), 5).close()
        before = serials(up.directory)
        assert len(before) == SERVERS
        assert created(up.directory) == SERVERS

        status, summary = await said("up", f"--dir={up.directory}", "--status")
        assert (status, summary["servers"], summary["gone"]) == (0, SERVERS, [])
        status, refusal = await said("up", f"--dir={up.directory}")
        assert status == 2
        assert "already runs" in refusal["message"]

        up.process.send_signal(signal.SIGINT)
        assert await up.ended() == 0
        assert up.left() == []
        assert network_file(up.directory) is None
        assert (await said("down", f"--dir={up.directory}"))[1]["stopped"] is False

        up.start()
        again = await up.ready()
        same = ("network", "domain", "locator", "hq", "dns", "slots", "servers")
        assert {key: again[key] for key in same} == {key: about[key] for key in same}
        assert serials(up.directory) == before, "the same nodes, no new certificate"
        assert created(up.directory) == SERVERS, "nothing was ordered anew"
        assert dig(again, name, "A") == [address]

        status, done = await said("down", f"--dir={up.directory}")
        assert (status, done["stopped"]) == (0, True)
        assert await up.ended() == 0
        assert up.left() == []

    run(main())


def test_a_killed_up_leaves_nothing_behind_and_the_next_goes_on(up: Up) -> None:
    """SIGKILL tidies nothing: every process must notice by itself."""

    async def main() -> None:
        up.start("--providers=1", "--regions=eu")
        about = await up.ready()
        groups = [item["group"] for item in about["processes"]]
        up.note()
        assert len(up.seen) > 2 * about["servers"]
        up.process.kill()
        await up.ended()
        await soon(lambda: up.left() == [], 20)
        assert not any(map(group_members, groups[:-1]))

        up.start()
        again = await up.ready()
        assert (again["locator"], again["servers"]) == (about["locator"], about["servers"])
        up.process.send_signal(signal.SIGTERM)
        assert await up.ended() == 0
        assert up.left() == []

    run(main())


def test_an_up_that_is_stopped_while_starting_leaves_nothing_behind(up: Up) -> None:
    async def main() -> None:
        up.start()
        await soon(lambda: bool(list(up.directory.glob("providers/*/servers/*/console.log"))), 60)
        up.note()
        up.process.send_signal(signal.SIGINT)
        assert await up.ended() == 0
        assert up.left() == []
        assert up.process.communicate()[0] == ""

    run(main())


def test_a_provider_and_headquarters_come_and_go(tmp_path: Path) -> None:
    """D31: killing HQ kills no server, killing a daemon's group is the loss of the provider."""

    async def main() -> None:
        network = LocalNetwork(
            tmp_path / "n", clock=CLOCK, entropy=SystemEntropy(), providers=2, regions=("eu",)
        )
        async with network as running:
            about = running.about
            assert about is not None
            roles = set(descendants(os.getpid()))
            hq = next(item.pid for item in about.processes if item.name == HQ)
            network.kill_hq()
            await soon(lambda: not alive(hq))
            await CLOCK.sleep_real(1.0)
            gone = {pid for pid in roles if not alive(pid)}
            assert gone == {hq}, "killing HQ kills no server"
            assert not network.running(HQ)

            lost = next(item for item in about.processes if item.name == "alder")
            assert len(group_members(lost.group)) > 2
            network.kill_provider("alder")
            await soon(lambda: not group_members(lost.group))
            assert set(await network.start_missing()) == {"alder", HQ}
            assert (await network.status()).term == 2
            file = network_file(network.directory)
            assert file is not None
            assert all(alive(item.pid) for item in file.processes)
            with pytest.raises(UsageError, match="runs already"):
                await network.start_provider("alder")
        assert descendants(os.getpid()) == ()

    run(main())


def test_a_start_that_fails_shows_the_culprits_log(tmp_path: Path) -> None:
    async def main() -> None:
        directory = tmp_path / "n"
        network = LocalNetwork(directory, clock=CLOCK, entropy=SystemEntropy(), providers=1)
        make_private_directory(directory)
        await network._prepare()
        (directory / "hq" / "control.db").write_bytes(b"this is no database" * 100)
        with pytest.raises(StartFault) as caught:
            await network.start()
        assert "hq.log" in str(caught.value)
        assert caught.value.log
        assert descendants(os.getpid()) == ()

        settings = load_settings(directory)
        assert settings is not None
        port = settings.hq_port
        with socket.create_server(("127.0.0.1", port)), pytest.raises(UsageError, match=str(port)):
            await network.start()
        shutil.rmtree(directory)

    run(main())


def test_settings_are_chosen_once(tmp_path: Path) -> None:
    one = LocalNetwork(tmp_path, clock=CLOCK, entropy=SystemEntropy(), providers=2)
    settings = asyncio.run(one._prepare())
    other = LocalNetwork(tmp_path, clock=CLOCK, entropy=SystemEntropy(), providers=5)
    assert asyncio.run(other._prepare()) == settings
    assert len(set(settings.subnets)) == 2
    assert len({*settings.ports(), settings.node_port}) == len(settings.ports()) + 1
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode({}))
    with pytest.raises(Exception, match="damaged"):
        load_settings(tmp_path)
