"""Providers' keys at headquarters: sealed, tried before the former goes, for two persons; a canary
is looked for wherever a key must not be (seed 004 §5.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import Operator, run
from tests.rim.test_provider_daemon import start as start_provider

from holdfast.cli.main import run as holdfast
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.admin import Status
from holdfast.hq.audit import audit_rows
from holdfast.hq.credential_admin import Credential, Credentials, Every, KeyOffer, Staged, Take
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import OperatorMade, Waiting
from holdfast.hq.snapshot import take as take_snapshot
from holdfast.hq.vault import SEAL_KEY, Vault
from holdfast.logic.audit import ExportLine, export_line
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.account import Account
from holdfast.rim.cloud.daemon import Daemon
from holdfast.rim.cloud.keys import Keys
from holdfast.rim.cloud.process import ProcessCloud
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.loopback import LoopbackClient
from holdfast.wire.cloud import SERVERS

CLOCK, ENTROPY = SystemClock(), SystemEntropy()
DAY_S = 86_400.0


class Ground:
    """A provider, its account's owner, and a headquarters with a key for machines alone."""

    def __init__(self, hq: Headquarters, operator: Operator, daemon: Daemon, first: str) -> None:
        self.hq = hq
        self.operator = operator
        self.daemon = daemon
        self.first = first
        key = (daemon._directory / "key").read_text()
        self.owner = ProcessCloud(daemon.listen, key, CLOCK)

    async def offer(self, key: str) -> Staged:
        path = "/credentials/alder/stage"
        staged: Staged = await self.operator.call("POST", path, KeyOffer(key), Staged)
        return staged

    async def rotate(self, key: str) -> Credential:
        order = Take((await self.offer(key)).fingerprint)
        taken: Credential = await self.operator.call(
            "POST", "/credentials/alder/take", order, Credential
        )
        return taken

    async def shown(self) -> Credential:
        found: Credentials = await self.operator.call("GET", "/credentials", None, Credentials)
        (item,) = found.items
        return item

    async def lines(self) -> list[ExportLine]:
        return [export_line(data) async for data in audit_rows(self.hq.parts.store)]

    async def works(self, key: str) -> bool:
        try:
            await ProcessCloud(self.daemon.listen, key, CLOCK).list()
        except UsageError:
            return False
        return True


Scenario = Callable[[Ground], Awaitable[None]]


def with_provider(scenario: Scenario, tmp_path: Path, *, plain: str = "alder.key") -> None:
    """`plain`: the key file of `hq.json`, as it lies there at the first start."""

    @asynccontextmanager
    async def provider() -> Any:
        (tmp_path / "alder").mkdir()
        daemon = await start_provider(tmp_path / "alder")
        try:
            yield daemon
        finally:
            await daemon.stop()

    async def main() -> None:
        async with provider() as daemon:
            first = Keys(tmp_path / "alder").make((SERVERS,), "hq", 0.0, ENTROPY).key
            (tmp_path / "hq").mkdir()
            (tmp_path / "hq" / plain).write_text(first + "\n")
            account = Account("alder", daemon.listen, plain, ("eu",))

            async def inner(hq: Headquarters, operator: Operator) -> None:
                await scenario(Ground(hq, operator, daemon, first))

            await asyncio.to_thread(run, inner, tmp_path, providers=(account,))

    asyncio.run(main())


def files(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in directory.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def test_a_plain_key_is_sealed_at_the_first_start_and_its_file_goes(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        home = ground.hq.home.directory
        assert not (home / "alder.key").exists()
        assert ground.hq.parts.credentials.key("alder") == ground.first
        item = await ground.shown()
        assert (item.here, item.author, item.due) == (True, "hq.json", False)
        assert [path for path, data in files(home) if ground.first.encode() in data] == []
        sealed = home / "credentials" / "alder.sealed"
        assert sealed.stat().st_mode & 0o777 == 0o600

    with_provider(scenario, tmp_path)


def test_a_plain_file_outside_is_left_to_whoever_put_it_there(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        assert (tmp_path / "elsewhere.key").exists()
        assert ground.hq.parts.credentials.key("alder") == ground.first

    with_provider(scenario, tmp_path, plain="../elsewhere.key")


def test_a_new_key_counts_from_the_next_call_and_the_former_can_go(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        book = ground.hq.parts.credentials
        second = await ground.owner.make_key((SERVERS,))
        cloud = ground.hq._clouds()["alder"]
        await cloud.list()
        taken = await ground.rotate(second.key)
        assert taken.scopes == (SERVERS,)
        assert (taken.wide, taken.here, taken.staged) == (False, True, "")
        assert book.key("alder") == second.key
        for item in await ground.owner.keys():
            if item.id != second.id:
                await ground.owner.revoke_key(item.id)
        assert not await ground.works(ground.first)
        await cloud.list()  # the same client, made before
        lines = [line for line in await ground.lines() if line.verb.startswith("credential")]
        assert [line.verb for line in lines] == ["credential.staged", "credential.rotated"]

    with_provider(scenario, tmp_path)


def test_a_key_that_does_not_work_changes_nothing(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        before = await ground.shown()
        with pytest.raises(UsageError, match="does not take this key") as caught:
            await ground.offer("wrong-" + "0" * 58)
        assert "wrong-" not in str(caught.value)
        for bad in ("", " \n", "two\nlines", "x" * 10_000):
            with pytest.raises(UsageError, match="one line"):
                await ground.offer(bad)
        assert await ground.shown() == msgspec.structs.replace(
            before, age_days=(await ground.shown()).age_days
        )
        second = await ground.owner.make_key((SERVERS,))
        staged = await ground.offer(second.key)
        await ground.owner.revoke_key(second.id)  # it dies between the two steps
        take = Take(staged.fingerprint)
        with pytest.raises(UsageError, match="does not take this key"):
            await ground.operator.call("POST", "/credentials/alder/take", take, Credential)
        assert ground.hq.parts.credentials.key("alder") == ground.first
        assert await ground.works(ground.first)

    with_provider(scenario, tmp_path)


def test_a_key_for_everything_is_taken_and_shown_as_such(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        taken = await ground.rotate((tmp_path / "alder" / "key").read_text())
        assert taken.wide
        assert "keys" in taken.scopes

    with_provider(scenario, tmp_path)


def test_a_change_waits_for_the_second_and_what_waits_holds_no_key(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        order = {"name": "ann", "role": "operator"}
        made = await ground.operator.call("POST", "/operators", order, OperatorMade)
        ann = LoopbackClient(ground.hq.admin_address, made.key, CLOCK)
        second = await ground.owner.make_key((SERVERS,))
        base = "/admin/v1/credentials/alder"
        staged = await ann.call("POST", f"{base}/stage", KeyOffer(second.key), Staged)
        status, data = await ann.exchange("POST", f"{base}/take", Take(staged.fingerprint))
        waiting = msgspec.json.decode(data, type=Waiting)
        assert status == 202
        assert ground.hq.parts.credentials.key("alder") == ground.first
        rows = (await ground.hq.parts.store.range("/")).items
        assert not [kv.key for kv in rows if second.key.encode() in kv.value]
        await ground.operator.call("POST", f"/pending/{waiting.pending}/agree", None, Credential)
        assert ground.hq.parts.credentials.key("alder") == second.key
        assert (await ann.exchange("PUT", f"{base}/schedule", Every(30.0)))[0] == 202

    with_provider(scenario, tmp_path)


def test_another_key_staged_meanwhile_is_not_what_the_second_agreed_to(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        second = await ground.owner.make_key((SERVERS,))
        third = await ground.owner.make_key((SERVERS,))
        agreed = await ground.offer(second.key)
        await ground.offer(third.key)
        take = Take(agreed.fingerprint)
        with pytest.raises(UsageError, match="begin anew"):
            await ground.operator.call("POST", "/credentials/alder/take", take, Credential)
        assert ground.hq.parts.credentials.key("alder") == ground.first

    with_provider(scenario, tmp_path)


def test_a_schedule_reminds_in_status_and_once_a_day_in_the_log(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        book = ground.hq.parts.credentials
        path = "/credentials/alder/schedule"
        item: Credential = await ground.operator.call("PUT", path, Every(90.0), Credential)
        assert item.next_rotation_at == pytest.approx(CLOCK.wall() + 90 * DAY_S, abs=60)
        status: Status = await ground.operator.call("GET", "/status", None, Status)
        assert status.credentials_due == ()
        await book.remind()
        await book._change("alder", set_at=CLOCK.wall() - 91 * DAY_S)
        status = await ground.operator.call("GET", "/status", None, Status)
        assert status.credentials_due == ("alder",)
        for _ in range(3):
            await book.remind()
        due = [line for line in await ground.lines() if line.verb == "credential.due"]
        assert len(due) == 1
        second = await ground.owner.make_key((SERVERS,))
        assert not (await ground.rotate(second.key)).due
        assert await book.due() == ()

    with_provider(scenario, tmp_path)


def test_the_key_is_nowhere_in_the_clear(tmp_path: Path) -> None:
    """Disk, rows and audit log; `drill provider-leak` looks at processes. A control finds what is
    there."""

    async def scenario(ground: Ground) -> None:
        second = await ground.owner.make_key((SERVERS,), note="a note to be found")
        await ground.rotate(second.key)
        home = ground.hq.home.directory
        rows = (await ground.hq.parts.store.range("/")).items
        for canary in (ground.first.encode(), second.key.encode()):
            assert [path for path, data in files(home) if canary in data] == []
            assert [kv for kv in rows if canary in kv.value] == []
        mark = (await ground.shown()).fingerprint.encode()
        assert [kv for kv in rows if mark in kv.value], "the search sees what is there"

    with_provider(scenario, tmp_path)


def test_a_snapshot_takes_the_sealed_keys_and_what_opens_them(tmp_path: Path) -> None:
    async def scenario(ground: Ground) -> None:
        parts, home = ground.hq.parts, ground.hq.home.directory
        network = parts.authority.network
        snapshot = await take_snapshot(parts.store, home, parts.config, network, 1.0)
        found = {file.path: file.body for file in snapshot.files}
        new = tmp_path / "new"
        for path, body in found.items():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(body)
        assert Vault(new, SEAL_KEY, ENTROPY).get("alder") == ground.first

    with_provider(scenario, tmp_path)


def test_the_commands_read_a_key_from_a_file_and_print_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(ground: Ground) -> None:
        second = await ground.owner.make_key((SERVERS,))
        (tmp_path / "new.key").write_text(second.key + "\n")
        home = f"--dir={ground.hq.home.directory}"

        async def say(*words: str) -> tuple[int, str]:
            words = ("provider", "credential", *words, home)
            status = await asyncio.to_thread(holdfast, words)
            captured = capsys.readouterr()
            return status, captured.out + captured.err

        said = [
            await say("show", "--json"),
            await say("rotate", "alder", f"--key-file={tmp_path / 'new.key'}"),
            await say("schedule", "alder", "--every-days=90"),
            await say("show"),
            await say("set", "alder"),
            await say("rotate", "nobody"),
        ]
        assert [status for status, _ in said] == [0, 0, 0, 0, 2, 2]
        assert "take the former key back" in said[1][1]
        assert "next rotation" in said[3][1]
        assert "credential rotate alder" in said[4][1]
        everything = "".join(text for _, text in said)
        assert second.key not in everything
        assert ground.first not in everything
        third = await ground.owner.make_key((SERVERS,))
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(third.key.encode() + b"\n")))
        assert (await say("rotate", "alder"))[0] == 0
        assert ground.hq.parts.credentials.key("alder") == third.key

    with_provider(scenario, tmp_path)


# --- The vault -----------------------------------------------------------------------------------
def test_a_sealed_key_opens_with_its_seal_and_under_its_own_name_only(tmp_path: Path) -> None:
    vault = Vault(tmp_path, "elsewhere/seal", ENTROPY)
    (tmp_path / "elsewhere").mkdir()
    vault.put("alder/../x", "a secret")
    vault.put("birch", "another")
    assert (vault.get("alder/../x"), vault.get("birch")) == ("a secret", "another")
    assert vault.get("cedar") is None
    names = sorted(path.name for path in (tmp_path / "credentials").iterdir())
    assert names == ["alder%2F..%2Fx.sealed", "birch.sealed"]
    (tmp_path / "credentials" / names[0]).rename(tmp_path / "credentials" / "birch.sealed")
    with pytest.raises(OperationFault, match="set the key of birch anew"):
        vault.get("birch")
    (tmp_path / "elsewhere" / "seal").unlink()
    with pytest.raises(OperationFault, match="bring it back"):
        vault.get("birch")
    with pytest.raises(OperationFault, match="bring it back"):
        vault.put("cedar", "a third")
