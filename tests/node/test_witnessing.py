"""Every node is a witness, and one is enough (D4; issue 4 §6)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.node.stand_in_hq import StandInHq
from tests.node.test_agent import Fixture, joined, soon
from tests.rim.pki import DOMAIN, NOW

from holdfast.crypto.keys import SigningKey
from holdfast.errors import OperationFault
from holdfast.logic.trust.checkpoint import Checkpoint, log_origin, witness_name
from holdfast.logic.trust.merkle import Tree
from holdfast.logic.trust.note import cosigned_at, parse_line
from holdfast.node.home import Home
from holdfast.node.witnessing import Witnessing


def tree(size: int, forked_at: int | None = None) -> Tree:
    return Tree(b"fork" if n == forked_at else str(n).encode() for n in range(size))


def cosigned(hq: StandInHq, home: Home, log: Tree) -> bool:
    """Whether HQ has this node's good cosignature of the whole of `log`."""
    key = SigningKey(home.identity_file.read_bytes())
    text = Checkpoint(log_origin(DOMAIN, hq.pki.network), len(log), log.root()).text()
    name = witness_name(DOMAIN, key.node)
    lines = [parse_line(item.line) for item in hq.cosignatures if item.size == len(log)]
    return any(cosigned_at(text, line, name, key.public) == int(NOW) for line in lines)


def test_an_agent_cosigns_a_log_that_grows_and_refuses_a_forked_one(tmp_path: Path) -> None:
    async def scenario(fixture: Fixture) -> None:
        hq = fixture.hq
        hq.log = tree(5)
        async with fixture.running() as agent:
            await soon(lambda: cosigned(hq, fixture.home, tree(5)))
            assert fixture.home.witnessed().size == 5
            hq.log = tree(9)
            await soon(lambda: cosigned(hq, fixture.home, tree(9)))
            hq.log = tree(12, forked_at=4)
            await soon(lambda: bool(hq.log_faults))
            assert agent.witnessing.trouble == "the log was forked"
            assert not cosigned(hq, fixture.home, tree(12, forked_at=4))
        (fault,) = hq.log_faults
        assert fault.reason == "forked"
        (evidence,) = (fixture.home.directory / "evidence").iterdir()
        data = evidence.read_bytes()
        assert fault.held in data
        assert fault.offered in data
        assert fixture.home.report().log_trouble == "the log was forked"  # type: ignore[union-attr]

    asyncio.run(run(tmp_path, scenario))


def test_what_was_cosigned_is_known_after_a_restart(tmp_path: Path) -> None:
    async def scenario(fixture: Fixture) -> None:
        hq = fixture.hq
        hq.log = tree(9)
        async with fixture.running():
            await soon(lambda: cosigned(hq, fixture.home, tree(9)))
        hq.log = tree(7)
        async with fixture.running():
            await soon(lambda: bool(hq.log_faults))
        assert hq.log_faults[0].reason == "truncated"
        (fixture.home.directory / "witness.msgpack").write_bytes(b"\xc1")
        with pytest.raises(OperationFault, match="damaged"):
            fixture.home.witnessed()
        before = len(hq.cosignatures)
        async with fixture.running() as agent:
            assert "damaged" in agent.witnessing.trouble
            await soon(lambda: len(hq.heartbeats) > 3)
            assert len(hq.cosignatures) == before, (
                "it serves, and signs nothing it cannot vouch for"
            )

    asyncio.run(run(tmp_path, scenario))


def test_nothing_is_cosigned_that_is_not_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A witness that forgets would cosign a fork: memory first, then the signature."""

    def full(_home: Home, _seen: object) -> None:
        raise OperationFault("no space left")

    async def scenario(fixture: Fixture) -> None:
        monkeypatch.setattr(Home, "save_witnessed", full)
        fixture.hq.log = tree(5)
        agent = fixture.agent()
        for _ in range(2):
            with pytest.raises(OperationFault, match="no space"):
                await agent.witnessing.round()
        assert not fixture.hq.cosignatures

    asyncio.run(run(tmp_path, scenario))


def test_a_checkpoint_that_headquarters_did_not_sign_is_nothing(tmp_path: Path) -> None:
    async def scenario(fixture: Fixture) -> None:
        fixture.hq.log, fixture.hq.log_key = tree(5), SigningKey(b"x" * 32)
        witnessing: Witnessing = fixture.agent().witnessing
        with pytest.raises(Exception, match="another headquarters"):
            await witnessing.round()
        assert not fixture.hq.cosignatures

    asyncio.run(run(tmp_path, scenario))


async def run(tmp_path: Path, scenario: Callable[[Fixture], Awaitable[None]]) -> None:
    async with joined(tmp_path) as fixture, fixture.clock.real_timeout(60):
        await scenario(fixture)
