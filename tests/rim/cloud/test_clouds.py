"""Every kind of provider keeps the same promises (D25; seed 004 §3.3, §5.4).

Real: the process daemon, podman with runc behind Docker's API, libcloud's EC2 driver over HTTP to
moto, and a Kubernetes control plane by `bin/test-kubernetes`. Faithful fakes: Kubernetes, Hetzner
Cloud.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.rim.cloud.backends import BACKENDS, CLOCK, NETWORK, REGIONS, Backend, Podman

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.cloud.account import Account, Kind
from holdfast.rim.cloud.make import make_cloud
from holdfast.wire.cloud import CreateServer

pytestmark = pytest.mark.system
TOKEN = "hf1-one-time-join-token"
ALL = sorted(BACKENDS)


def play(kind: str, home: Path, scenario: Callable[[Backend], Awaitable[None]]) -> None:
    async def main() -> None:
        backend = BACKENDS[kind]()
        await backend.start(home)
        try:
            async with asyncio.timeout(90):
                await scenario(backend)
        finally:
            await backend.stop()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ALL)
def test_a_machine_lives_once(kind: str, tmp_path: Path) -> None:
    async def scenario(backend: Backend) -> None:
        cloud = backend.cloud()
        assert await cloud.list() == ()
        made = await cloud.create(CreateServer("intent-1", "eu", TOKEN))
        assert (made.name, made.region, made.state) == ("intent-1", "eu", "running")
        with pytest.raises(UsageError):
            await cloud.create(CreateServer("intent-1", "eu", "another token"))
        again = backend.cloud()  # headquarters was restarted: it knows by listing
        (listed,) = await again.list()
        assert (listed.name, listed.region, listed.state) == ("intent-1", "eu", "running")
        assert TOKEN in backend.told("intent-1")
        assert "another" not in backend.told("intent-1")
        await again.create(CreateServer("intent-2", "ap", TOKEN))
        assert {(s.name, s.region) for s in await cloud.list()} == {
            ("intent-1", "eu"),
            ("intent-2", "ap"),
        }
        for _ in range(2):
            await cloud.delete("intent-1")
        await cloud.delete("never-was")
        alive = [server.name for server in await cloud.list() if server.state == "running"]
        assert alive == ["intent-2"]

    play(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "process"])
def test_what_is_another_networks_is_neither_shown_nor_touched(kind: str, tmp_path: Path) -> None:
    async def scenario(backend: Backend) -> None:
        ours, theirs = backend.cloud(), backend.cloud("f" * 32)
        await theirs.create(CreateServer("intent-9", "eu", TOKEN))
        assert await ours.list() == ()
        await ours.delete("intent-9")
        assert [server.name for server in await theirs.list()] == ["intent-9"]

    play(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in ("process", "docker")])
def test_a_token_is_all_that_a_machine_is_told(kind: str, tmp_path: Path) -> None:
    """seed 004 §5.4: nothing in user data outlives the join."""

    async def scenario(backend: Backend) -> None:
        await backend.cloud().create(CreateServer("intent-1", "eu", TOKEN))
        told = backend.told("intent-1")
        assert backend.key not in told
        rest = told.replace(TOKEN, "")
        assert len(rest) < 120, "a path and a mode, no script"

    play(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", ALL)
def test_a_region_it_has_not_is_the_operators_matter(kind: str, tmp_path: Path) -> None:
    async def scenario(backend: Backend) -> None:
        with pytest.raises(UsageError):
            await backend.cloud().create(CreateServer("intent-1", "mars", TOKEN))
        assert await backend.cloud().list() == ()

    play(kind, tmp_path, scenario)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in ("docker", "libcloud")])
def test_a_rotated_key_counts_at_once(kind: str, tmp_path: Path) -> None:
    async def scenario(backend: Backend) -> None:
        keys = ["wrong", backend.key]
        cloud = backend.cloud(key=lambda: keys[0])
        with pytest.raises((UsageError, OperationFault)):
            await cloud.list()
        keys.pop(0)
        assert await cloud.list() == ()

    play(kind, tmp_path, scenario)


def test_a_sold_out_size_may_come_back(tmp_path: Path) -> None:
    async def scenario(backend: Backend) -> None:
        backend.account = msgspec.structs.replace(backend.account, size="sold-out")
        with pytest.raises(OperationFault):
            await backend.cloud().create(CreateServer("intent-1", "eu", TOKEN))

    play("hcloud", tmp_path, scenario)


def test_a_container_made_and_never_started_is_started(tmp_path: Path) -> None:
    """Headquarters died between the two calls; the next order of the same intent mends it."""

    async def scenario(backend: Backend) -> None:
        labels = [f"--label=net.holdfast.network={NETWORK}", "--label=net.holdfast.region=eu"]
        assert isinstance(backend, Podman)
        backend.engine.podman("create", "--name=intent-1", *labels, backend.account.image)
        with pytest.raises(UsageError, match="already"):
            await backend.cloud().create(CreateServer("intent-1", "eu", TOKEN))
        state = backend.engine.podman("inspect", "--format={{.State.Status}}", "intent-1")
        assert state.strip() == "running"

    play("docker", tmp_path, scenario)


# --- A provider at its worst ---------------------------------------------------------------------
ANSWERS = (
    b"",
    b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 429 Slow\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<huh>",
)


def account_at(kind: Kind, endpoint: str) -> Account:
    return Account(
        "worst", endpoint, "key", REGIONS, kind=kind, image="i", size="s", driver="ec2",
        places={"eu": "eu-west-1"},
    )  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.PROCESS])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_failing_provider_says_is_never_a_traceback(kind: Kind, answer: bytes) -> None:
    async def main() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        cloud = make_cloud(account_at(kind, f"http://{host}:{port}"), NETWORK, lambda: "a:b", CLOCK)
        for call in (cloud.list(), cloud.create(CreateServer("i", "eu", TOKEN)), cloud.delete("i")):
            with pytest.raises((OperationFault, UsageError)):
                await call
        server.close()
        for call in (cloud.list(), cloud.delete("i")):
            with pytest.raises(OperationFault):
                await call

    asyncio.run(main())


def test_an_account_says_what_it_lacks() -> None:
    for kind, field in ((Kind.DOCKER, "image"), (Kind.HCLOUD, "size"), (Kind.LIBCLOUD, "driver")):
        account = msgspec.structs.replace(account_at(kind, "http://x"), **{field: ""})
        with pytest.raises(UsageError, match=field):
            account.check()
