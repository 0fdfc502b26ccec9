"""A node carries releases out: real role processes from real other sources (ADR 0041)."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.node.test_agent import Fixture, joined, run, soon
from tests.node.test_machine import WANTED
from tests.rim.pki import NETWORK, NOW

from holdfast import __version__
from holdfast.cli.drills.next_release import NEXT_VERSION, Patch, make_tree, next_tree
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.releasekey import certify_release_key
from holdfast.errors import OperationFault, PeerFault
from holdfast.node import upgrading
from holdfast.node.agent import Agent
from holdfast.node.machine import Phase
from holdfast.node.trial import Stage
from holdfast.rim.archive import pack_source
from holdfast.rim.files import sync_directory, write_file
from holdfast.wire.hq import Desired
from holdfast.wire.records import Staple
from holdfast.wire.release import Knobs, Release, release_id, sign_release
from holdfast.wire.versions import WIRE

KEY = SigningKey(b"k" * 32)
DEAD_ON_IMPORT = Patch("rim/process.py", "_PR_SET_PDEATHSIG: Final = 1\n", "raise SystemExit(7)\n")
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The next version, and one that cannot even start."""
    base = tmp_path_factory.mktemp("sources")
    return {
        "next": pack_source(next_tree(base / "next")),
        "dead": pack_source(make_tree(base / "dead", DEAD_ON_IMPORT)),
    }


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "PROVE_S", 1.0)
    monkeypatch.setattr(upgrading, "PROVE_REAL_S_MIN", 1.0)
    monkeypatch.setattr(upgrading, "TICK_REAL_S", 0.05)
    monkeypatch.setattr(upgrading, "FETCH_WAITS_REAL_S", (0.1,))


def signed(node: Fixture, archive: bytes, **changes: object) -> Staple:
    """A release of the stand-in's network, served by it."""
    proof = certify_release_key(node.hq.pki.root, KEY, NOW)
    release = Release(
        NETWORK, "r", "v", 1, WIRE + 1, 3, hash_bytes(archive), len(archive), Knobs(), int(NOW)
    )
    staple = sign_release(KEY, proof, replace(release, **changes))
    node.hq.archives[release_id(staple).hex()] = archive
    return staple


def wanting(staple: Staple | None, version: int = 3, **changes: object) -> Desired:
    return replace(WANTED, version=version, wire=WIRE, release=staple, **changes)


@contextlib.asynccontextmanager
async def started(tmp_path: Path) -> AsyncIterator[tuple[Fixture, Agent]]:
    async with joined(tmp_path) as node, node.running() as agent:
        node.hq.want(wanting(None, 2))
        await soon(lambda: agent.machine.desired_version == 2)
        yield node, agent


def says(node: Fixture, release: bytes) -> bool:
    return node.hq.heartbeats[-1].release == release


def test_a_release_takes_over_is_trusted_and_survives_a_restart(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node:
            staple = signed(node, archives["next"])
            async with node.running() as agent:
                node.hq.want(wanting(None, 2))
                await soon(lambda: agent.machine.desired_version == 2)
                node.hq.want(wanting(staple))
                await soon(lambda: says(node, release_id(staple)))
                assert node.lines("starts") == [__version__, NEXT_VERSION]
                told = node.lines("told")
                assert told.index("Apply 3") < told.index("Stop"), "it knows its orders before"
                assert not node.hq.heartbeats[-1].proved
                await soon(lambda: node.hq.heartbeats[-1].proved)
                assert agent.upgrading.trial.kept.good == release_id(staple)
            async with node.running():
                await soon(lambda: len(node.lines("starts")) == 3)
                assert node.lines("starts")[2] == NEXT_VERSION
                node.hq.want(wanting(None, 4))
                await soon(lambda: says(node, b""))
                assert node.lines("starts")[3] == __version__

    run(main())


def test_a_release_that_cannot_start_costs_nobody_anything(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            staple = signed(node, archives["dead"])
            node.hq.want(wanting(staple))
            await soon(lambda: node.hq.heartbeats[-1].refused == release_id(staple))
            assert "does not start" in node.hq.heartbeats[-1].refused_why
            assert says(node, b"")
            assert "Stop" not in node.lines("told"), "the old role was never asked to go"
            assert node.lines("starts") == [__version__]
            assert "went back" in agent.upgrading.note()
            node.hq.want(wanting(None, 4))
            await soon(lambda: node.hq.heartbeats[-1].refused == b"")

    run(main())


def test_a_role_that_dies_before_it_is_trusted_is_taken_back(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrading, "PROVE_REAL_S_MIN", 60.0)

    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            staple = signed(node, archives["next"])
            node.hq.want(wanting(staple))
            await soon(lambda: says(node, release_id(staple)))
            (node.orders / "die").write_text("13")
            await soon(lambda: node.hq.heartbeats[-1].refused == release_id(staple))
            assert "served and died" in node.hq.heartbeats[-1].refused_why
            await soon(lambda: agent.machine.phase is Phase.SERVING)
            assert node.lines("starts") == [__version__, NEXT_VERSION, __version__]

    run(main())


def test_what_was_not_signed_or_is_another_archive_is_refused(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    async def main() -> None:
        async with started(tmp_path) as (node, _):
            swapped = signed(node, archives["next"])
            node.hq.archives[release_id(swapped).hex()] = archives["dead"]
            stolen = replace(
                signed(node, archives["next"], name="x"),
                proof=node.hq.pki.intermediate.certificate,
            )
            foreign = signed(node, archives["next"], network=b"f" * 16)
            newer = signed(node, archives["next"], wire_min=WIRE + 1)
            missing = signed(node, archives["next"], name="gone")
            del node.hq.archives[release_id(missing).hex()]
            cases = {
                "not the one that was signed": swapped,
                "no release key": stolen,
                "another network": foreign,
                "install a newer one first": newer,
                "no such release": missing,
            }
            for version, (why, staple) in enumerate(cases.items(), 3):
                node.hq.want(wanting(staple, version))

                def heard(why: str = why) -> bool:
                    return why in node.hq.heartbeats[-1].refused_why

                await soon(heard)
            assert node.lines("starts") == [__version__]

    run(main())


def test_a_full_disk_puts_a_release_off_and_stops_nothing(
    tmp_path: Path, archives: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    disk: list[OSError] = [full]

    def sync(path: Path) -> None:
        if disk:
            raise full
        sync_directory(path)

    def write(path: Path, data: bytes) -> None:
        if disk and path.name == "kept.msgpack":
            raise OperationFault("cannot write: No space left on device")
        write_file(path, data)

    monkeypatch.setattr("holdfast.rim.archive.sync_directory", sync)
    monkeypatch.setattr("holdfast.node.releases.write_file", write)

    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            staple = signed(node, archives["next"])
            node.hq.want(wanting(staple))
            await soon(lambda: "No space left" in agent.upgrading.note())
            beats = len(node.hq.heartbeats)
            await soon(lambda: len(node.hq.heartbeats) > beats + 5)
            assert node.hq.heartbeats[-1].refused == b""
            disk.clear()
            await soon(lambda: says(node, release_id(staple)))
            disk.append(full)
            await soon(lambda: node.hq.heartbeats[-1].proved)
            kept = agent.upgrading.releases.directory / "kept.msgpack"
            assert not kept.exists()
            disk.clear()
            await soon(kept.exists)

    run(main())


def test_headquarters_that_cannot_give_it_now_is_asked_again(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            staple = signed(node, archives["next"])
            node.hq.fetch_faults = [OperationFault("full"), PeerFault("who are you")] * 4
            node.hq.want(wanting(staple))
            await soon(lambda: says(node, release_id(staple)))
            assert not node.hq.fetch_faults
            assert agent.upgrading.trial.kept.refused == b""

    run(main())


def test_a_trusted_release_that_was_damaged_is_fetched_again(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            staple = signed(node, archives["next"])
            node.hq.want(wanting(staple))
            await soon(lambda: node.hq.heartbeats[-1].proved and says(node, release_id(staple)))
            place = agent.upgrading.releases.place(release_id(staple))
            source = place / "tree" / "holdfast" / "rim" / "process.py"
            source.write_bytes(b"")
            (node.orders / "die").write_text("13")
            await soon(lambda: len(node.lines("starts")) == 4, 30.0)
            assert node.lines("starts")[2:] == [__version__, NEXT_VERSION], "fetched once more"
            assert source.stat().st_size > 0
            await soon(lambda: node.hq.heartbeats[-1].proved and says(node, release_id(staple)))

    run(main())


def test_a_role_of_another_release_says_nothing_of_the_one_that_is_tried(tmp_path: Path) -> None:
    async def main() -> None:
        async with joined(tmp_path) as node:
            new, carrier = b"n" * 32, node.agent().upgrading
            carrier.trial.want(new)
            carrier.trial.begin(new)
            carrier.trial.fetched()
            carrier.trial.warm()
            carrier.ready(b"")
            carrier.exited(1, b"")
            assert carrier.trial.stage is Stage.TRYING
            carrier.ready(new)
            assert carrier.trial.stage is Stage.PROVING
            carrier.exited(1, b"")
            assert carrier.trial.stage is Stage.PROVING
            carrier.exited(1, new)
            assert carrier.trial.kept.refused == new

    run(main())


def test_an_owner_puts_it_off_and_is_told_when_it_is_required(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            agent.upgrading.releases.defer(NOW + 10 * DAY_S)
            staple = signed(node, archives["next"])
            node.hq.want(wanting(staple, release_required_at=NOW + DAY_S))
            await soon(lambda: node.hq.heartbeats[-1].deferred_until == NOW + 10 * DAY_S)
            await soon(lambda: agent.upgrading.note().startswith("there is another release"))
            node.clock.wall_s = NOW + 2 * DAY_S
            assert agent.upgrading.note().startswith("headquarters requires another release")
            beats = len(node.hq.heartbeats)
            await soon(lambda: len(node.hq.heartbeats) > beats + 5)
            assert node.lines("starts") == [__version__], "told, and served on"
            node.clock.wall_s = NOW + 11 * DAY_S
            await soon(lambda: says(node, release_id(staple)))

    run(main())


def test_a_headquarters_that_knows_no_releases_changes_nothing(
    tmp_path: Path, archives: dict[str, bytes]
) -> None:
    """Wire 1: what it cannot say is not taken for a wish."""

    async def main() -> None:
        async with started(tmp_path) as (node, agent):
            staple = signed(node, archives["next"])
            node.hq.want(wanting(staple))
            await soon(lambda: says(node, release_id(staple)))
            node.hq.want(replace(WANTED, version=9))
            await soon(lambda: agent.machine.desired_version == 9)
            await soon(lambda: node.hq.heartbeats[-1].desired == 9)
            assert node.hq.heartbeats[-1].release == b"", "and is not told of them either"
            assert agent.upgrading.trial.running == release_id(staple)

    run(main())
