"""The process provider: the cloud API, its own log, and what survives which kill (D25, D31)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from holdfast.errors import RETIRED_STATUS, UsageError
from holdfast.rim import process as rim
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.daemon import Daemon, DaemonFile, provider_key
from holdfast.rim.cloud.machines import AgentCommand, Machines, address_at
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import lock_directory
from holdfast.wire.cloud import (
    SCOPES,
    SERVERS,
    CloudLog,
    CreateServer,
    KeyInfo,
    KeyMade,
    KeyOrder,
    Server,
    ServerList,
)

CLOCK = SystemClock()

AGENT = """
import os, pathlib, subprocess, sys, time
home = pathlib.Path(sys.argv[1])
role = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(home / "pids").write_text(f"{os.getpid()} {role.pid}")
(home / "starts").open("a").write(sys.argv[2] + "\\n")
time.sleep(600)
"""

DAEMON = """
import asyncio, pathlib, sys
sys.path.insert(0, sys.argv[2])
from test_provider_daemon import start
from holdfast.rim.process import lead_group

async def main():
    lead_group()
    daemon = await start(pathlib.Path(sys.argv[1]))
    await asyncio.Event().wait()

asyncio.run(main())
"""


def sleeper(home: Path, address: str) -> Sequence[str]:
    """An agent with a role below it, both asleep."""
    return (sys.executable, "-c", AGENT, str(home), address)


def exiting(status: int) -> AgentCommand:
    """An agent that notes its start and ends with `status`."""
    text = (
        "import sys, pathlib;"
        "(pathlib.Path(sys.argv[1]) / 'starts').open('a').write('x\\n');"
        f"sys.exit({status})"
    )
    return lambda home, _address: (sys.executable, "-c", text, str(home))


async def start(
    directory: Path, command: AgentCommand = sleeper, *, keep_disks: bool = False
) -> Daemon:
    machines = Machines(
        directory,
        subnet="127.99.7",
        regions=("eu", "ap"),
        command=command,
        clock=CLOCK,
        keep_disks=keep_disks,
    )
    daemon = Daemon(directory, "alder", provider_key(directory, SystemEntropy()), machines)
    await daemon.start("127.0.0.1", 0)
    return daemon


async def call(
    directory: Path, method: str, path: str, body: object = None, *, key: str | None = None
) -> tuple[int, bytes]:
    """One request over a plain socket: no client of ours between the test and the API."""
    about = msgspec.json.decode((directory / "daemon.json").read_bytes(), type=DaemonFile)
    host, _, port = about.listen.rpartition(":")
    bearer = (directory / "key").read_text() if key is None else key
    data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    head += f"authorization: Bearer {bearer}\r\ncontent-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    reply = await reader.read()
    writer.close()
    return int(reply.split()[1]), reply.partition(b"\r\n\r\n")[2]


async def create(directory: Path, name: str, region: str = "eu") -> tuple[int, Server]:
    status, body = await call(
        directory, "POST", "/v1/servers", CreateServer(name, region, f"token of {name}")
    )
    return status, msgspec.json.decode(body, type=Server)


async def soon(true: Callable[[], bool], seconds: float = 15.0) -> None:
    async with CLOCK.real_timeout(seconds):
        while not true():
            await CLOCK.sleep_real(0.01)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with CLOCK.real_timeout(40):
            await work

    asyncio.run(main())


def pids(directory: Path, name: str) -> tuple[int, ...]:
    """Agent and role of a server, once they have started."""
    text = (directory / "servers" / name / "pids").read_text()
    return tuple(int(word) for word in text.split())


def starts(directory: Path, name: str) -> int:
    path = directory / "servers" / name / "starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def verbs(directory: Path, name: str) -> list[str]:
    """The provider's own log of one name, read from disk."""
    lines = map(json.loads, (directory / "events.jsonl").read_text().splitlines())
    return [line["verb"] for line in lines if line["name"] == name]


def test_a_server_is_made_once_listed_and_destroyed(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = await start(tmp_path)
        status, server = await create(tmp_path, "i1")
        assert status == 201
        assert (server.address, server.state, server.region) == ("127.99.7.1", "running", "eu")
        home = tmp_path / "servers" / "i1"
        assert (home / "token").read_text() == "token of i1"
        assert (home / "token").stat().st_mode & 0o777 == 0o600
        await soon(lambda: starts(tmp_path, "i1") == 1)
        agent, role = pids(tmp_path, "i1")
        assert daemon.machines.pid("i1") == agent

        assert await create(tmp_path, "i1", "ap") == (409, server)
        _, body = await call(tmp_path, "GET", "/v1/servers")
        assert msgspec.json.decode(body, type=ServerList).servers == (server,)

        status, body = await call(tmp_path, "DELETE", "/v1/servers/i1")
        assert status == 200
        assert msgspec.json.decode(body, type=Server).state == "gone"
        await soon(lambda: not rim.alive(agent) and not rim.alive(role))
        assert not home.exists()
        assert (await call(tmp_path, "DELETE", "/v1/servers/i1"))[0] == 200
        assert (await create(tmp_path, "i1"))[1].state == "gone", "a name is used once, for ever"
        assert (await call(tmp_path, "DELETE", "/v1/servers/i2"))[0] == 404
        _, body = await call(tmp_path, "GET", "/v1/log")
        told = [event.verb for event in msgspec.json.decode(body, type=CloudLog).events]
        assert told == ["start", "create", "conflict", "delete", "conflict"]
        assert (await create(tmp_path, "i2"))[1].address == "127.99.7.2"
        await daemon.stop()

    run(main())


def test_only_the_key_opens_the_api(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = await start(tmp_path)
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        for key in ("", "0" * 64):
            for method, path in (("GET", "/v1/servers"), ("POST", "/v1/servers")):
                assert (await call(tmp_path, method, path, b"{}", key=key))[0] == 401
        assert verbs(tmp_path, "alder") == ["start"]
        await daemon.stop()

    run(main())


def test_garbage_is_refused_and_creates_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = await start(tmp_path)
        good = {"name": "i1", "region": "eu", "user_data": "t"}
        bad: list[tuple[int, object]] = [
            (400, b"\xff"),
            (400, b"[]"),
            (400, {**good, "more": 1}),
            (400, b" " * 70_000),
            (422, {**good, "name": "../up"}),
            (422, {**good, "name": ""}),
            (422, {**good, "name": "x" * 101}),
            (422, {**good, "region": "mars"}),
        ]
        for status, body in bad:
            assert (await call(tmp_path, "POST", "/v1/servers", body))[0] == status, body
        assert (await call(tmp_path, "GET", "/v2/servers"))[0] == 404
        assert daemon.machines.list() == ()
        assert list((tmp_path / "servers").iterdir()) == []
        await daemon.stop()

    run(main())


def test_many_requests_for_one_name_make_one_server(tmp_path: Path) -> None:
    """D25: a call repeated after a crash makes no second machine."""

    async def main() -> None:
        daemon = await start(tmp_path)
        answers = await asyncio.gather(*(create(tmp_path, "i1") for _ in range(20)))
        assert sorted(status for status, _ in answers) == [201] + [409] * 19
        assert len({server for _, server in answers}) == 1
        await soon(lambda: starts(tmp_path, "i1") == 1)
        assert verbs(tmp_path, "i1").count("create") == 1
        await daemon.stop()

    run(main())


def test_a_clean_stop_leaves_no_process_and_a_restart_brings_the_servers_back(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        daemon = await start(tmp_path)
        for name in ("i1", "i2", "i3"):
            await create(tmp_path, name)
            await soon(lambda name=name: starts(tmp_path, name) == 1)  # type: ignore[misc]
        await call(tmp_path, "DELETE", "/v1/servers/i2")
        old = [pid for name in ("i1", "i3") for pid in pids(tmp_path, name)[:1]]
        await daemon.stop()
        assert not any(map(rim.alive, old))
        assert not (tmp_path / "daemon.json").exists()

        again = await start(tmp_path)
        await soon(lambda: starts(tmp_path, "i1") == starts(tmp_path, "i3") == 2)
        assert [s.name for s in again.machines.list() if s.state == "running"] == ["i1", "i3"]
        assert verbs(tmp_path, "i1") == ["create", "power-on"]
        assert verbs(tmp_path, "i2") == ["create", "delete"]
        await again.stop()

    run(main())


def test_a_crashed_agent_is_started_again_and_a_retired_one_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        crashing = await start(tmp_path / "a", exiting(5))
        await create(tmp_path / "a", "i1")
        await soon(lambda: starts(tmp_path / "a", "i1") == 2)
        assert verbs(tmp_path / "a", "i1")[:3] == ["create", "exit 5", "restart"]
        await crashing.stop()

        retired = await start(tmp_path / "b", exiting(RETIRED_STATUS))
        await create(tmp_path / "b", "i1")
        await soon(lambda: f"exit {RETIRED_STATUS}" in verbs(tmp_path / "b", "i1"))
        await CLOCK.sleep_real(0.05)
        assert starts(tmp_path / "b", "i1") == 1
        assert retired.machines._tasks["i1"].done()
        await retired.stop()

    run(main())


def test_disks_of_the_deleted_are_kept_when_asked(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = await start(tmp_path, keep_disks=True)
        await create(tmp_path, "i1")
        await soon(lambda: starts(tmp_path, "i1") == 1)
        await call(tmp_path, "DELETE", "/v1/servers/i1")
        assert (tmp_path / "gone" / "i1" / "starts").exists()
        await daemon.stop()

    run(main())


@pytest.mark.parametrize("group", [True, False])
def test_sigkill_takes_every_process_and_the_power_comes_back(tmp_path: Path, group: bool) -> None:
    """D31: killing the daemon's group is the loss of the provider; killing it alone is too."""

    async def main() -> None:
        command = (sys.executable, "-c", DAEMON, str(tmp_path), str(Path(__file__).parent))
        lost: rim.Child[object] = await rim.spawn(command, own_session=True)
        await soon((tmp_path / "daemon.json").exists)
        await create(tmp_path, "i1")
        await create(tmp_path, "i2", "ap")
        await soon(lambda: starts(tmp_path, "i1") == starts(tmp_path, "i2") == 1)
        agents = [pids(tmp_path, name)[0] for name in ("i1", "i2")]
        assert set(agents) < set(rim.group_members(lost.pid))
        if group:
            rim.kill_group(lost.pid)
            await soon(lambda: not rim.group_members(lost.pid))
        else:
            os.kill(lost.pid, signal.SIGKILL)
            await soon(lambda: not any(map(rim.alive, agents)))
        await lost.wait()

        rim.kill_group(lost.pid)
        back: rim.Child[object] = await rim.spawn(command, own_session=True)
        await soon(lambda: starts(tmp_path, "i1") == starts(tmp_path, "i2") == 2)
        assert verbs(tmp_path, "i1") == ["create", "power-on"]
        rim.kill_group(back.pid)
        await back.wait()

    run(main())


def test_one_daemon_for_one_directory(tmp_path: Path) -> None:
    with lock_directory(tmp_path, "a provider"), pytest.raises(UsageError, match="already runs"):
        lock_directory(tmp_path, "a provider")
    lock_directory(tmp_path, "a provider").close()


def test_addresses_are_loopback_and_differ() -> None:
    assert address_at("127.11", 0) == "127.11.0.1"
    assert address_at("127.11", 300) == "127.11.1.45"
    assert address_at("127.11.3", 253) == "127.11.3.254"
    assert len({address_at("127.11", index) for index in range(65_534)}) == 65_534
    for bad in ("10.0", "127", "127.0.0.1", "x.y", "127.300"):
        with pytest.raises(UsageError):
            address_at(bad, 0)


# --- Keys ----------------------------------------------------------------------------------------
def test_a_key_for_machines_does_that_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = await start(tmp_path)
        order = KeyOrder((SERVERS,), "headquarters")
        status, body = await call(tmp_path, "POST", "/v1/keys", order)
        made = msgspec.json.decode(body, type=KeyMade)
        assert status == 201
        assert made.key.encode() not in (tmp_path / "keys.json").read_bytes()
        key = made.key
        assert (await call(tmp_path, "GET", "/v1/servers", key=key))[0] == 200
        assert (await call(tmp_path, "GET", "/v1/log", key=key))[0] == 403
        assert (await call(tmp_path, "GET", "/v1/keys", key=key))[0] == 403
        assert (await call(tmp_path, "POST", "/v1/keys", order, key=key))[0] == 403
        assert (await call(tmp_path, "DELETE", f"/v1/keys/{made.id}", key=key))[0] == 403
        status, body = await call(tmp_path, "GET", "/v1/key", key=key)
        assert msgspec.json.decode(body, type=KeyInfo).scopes == (SERVERS,)
        status, body = await call(tmp_path, "GET", "/v1/key")
        assert set(msgspec.json.decode(body, type=KeyInfo).scopes) == set(SCOPES)
        for bad in (KeyOrder(()), KeyOrder(("everything",))):
            assert (await call(tmp_path, "POST", "/v1/keys", bad))[0] == 422
        await daemon.stop()

    run(main())


def test_a_key_taken_back_is_refused_at_once_and_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        daemon = await start(tmp_path)
        keys = []
        for _ in range(2):
            _, body = await call(tmp_path, "POST", "/v1/keys", KeyOrder((SERVERS,)))
            keys.append(msgspec.json.decode(body, type=KeyMade))
        assert (await call(tmp_path, "DELETE", f"/v1/keys/{keys[0].id}"))[0] == 200
        assert (await call(tmp_path, "DELETE", f"/v1/keys/{keys[0].id}"))[0] == 404
        for _ in range(2):
            assert (await call(tmp_path, "GET", "/v1/servers", key=keys[0].key))[0] == 401
            assert (await call(tmp_path, "GET", "/v1/servers", key=keys[1].key))[0] == 200
            await daemon.stop()
            daemon = await start(tmp_path)
        await daemon.stop()

    run(main())
