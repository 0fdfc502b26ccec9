"""Subscriptions over real HTTP: what a client gets, when it changes, who is turned away."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from tests.hq.headquarters import Operator, run
from tests.hq.test_access import World

from holdfast.crypto.pure import base32
from holdfast.hq.access import DeviceMade
from holdfast.hq.access_admin import AccessState, MemberOrder
from holdfast.hq.main import Headquarters
from holdfast.logic.access.model import Cell, Member
from holdfast.logic.access.render.notice import NOBODY
from holdfast.logic.fleet.model import Role

Scenario = Callable[["Client"], Awaitable[None]]


class Got(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def lines(self) -> list[str]:
        return base64.b64decode(self.body, validate=True).decode().split("\n")


class Client(World):
    """A world whose headquarters has the plain port, and a client that knows a URL."""

    async def get(self, path: str, method: str = "GET", **headers: str) -> Got:
        host, _, port = self.hq.subscriptions_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        said = {"host": "sub.example.net", "connection": "close"}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        whole = await reader.read()
        writer.close()
        start, _, body = whole.partition(b"\r\n\r\n")
        status, *fields = start.decode("latin-1").split("\r\n")
        pairs = [field.split(": ", 1) for field in fields]
        names = [name for name, _ in pairs]
        assert len(set(names)) == len(names), "each header once: Hiddify ignores repeated ones"
        return Got(int(status.split()[1]), dict(pairs), body)

    async def fetched(self, device: str) -> float:
        return next(d.fetched_at for d in (await self.state()).devices if d.id == device)

    async def seen(self, ready: Callable[[AccessState], bool]) -> AccessState:
        """The state once this process knows of a change."""
        while True:
            state = await self.state()
            if ready(state):
                return state


def serve(scenario: Scenario, directory: Path) -> None:
    async def inside(hq: Headquarters, operator: Operator) -> None:
        client = Client(hq, operator)
        await client.found()
        await scenario(client)

    run(inside, directory, subscriptions_listen="127.0.0.1:0")


def test_a_client_gets_its_servers_and_what_changed(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.device(await client.member(quota_bytes=1_000, expires_at=2_000_000_000))
        url = f"/sub/{made.token}"
        first = await client.get(url, user_agent="v2rayNG/1.10")
        assert first.status == 200
        assert [line.split("&")[2] for line in first.lines()] == ["type=grpc", "type=xhttp"]
        info = first.headers["subscription-userinfo"]
        assert info == "upload=0; download=0; total=1000; expire=2000000000"
        credential = (await client.state()).devices[0].credential
        assert first.lines()[0].startswith(f"vless://{credential}@127.77.0.1:443?")
        again = await client.get(
            url, user_agent="v2rayNG/1.10", if_none_match=first.headers["etag"]
        )
        assert (again.status, again.body) == (304, b"")
        assert again.headers["subscription-userinfo"] == info
        other = await client.get(
            url, user_agent="sing-box 1.13", if_none_match=first.headers["etag"]
        )
        assert other.status == 200, "another format is another body"
        await client.operator.call("POST", "/access/cells/c1/turn", None, Cell)
        await client.seen(lambda s: s.cells[0].newest().number == 2)
        turned = await client.get(
            url, user_agent="v2rayNG/1.10", if_none_match=first.headers["etag"]
        )
        assert turned.status == 200
        secret = (await client.state()).cells[0].newest().secret.hex()
        assert all(secret in line for line in turned.lines())
        await client.node(Role.ENTRY, "eve", address="127.77.0.9:443")
        await client.seen(lambda s: len(s.entries) == 2)
        assert len((await client.get(url, user_agent="v2rayNG/1.10")).lines()) == 4
        for format in ("v2ray", "links", "sing-box", "mihomo", "xray-json", "outline", "html"):
            assert (await client.get(f"{url}/{format}")).status == 200, format

    serve(scenario, tmp_path)


def test_what_no_client_should_ask(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.device(await client.member())
        url = f"/sub/{made.token}"
        head = await client.get(url, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        assert (await client.get(url, "POST")).status == 405
        for path in ("/", "/sub/", f"{url}/word", "/sub/nobodys", f"{url}x", "/v1/root"):
            got = await client.get(path)
            assert (got.status, got.body) == (404, b"not found"), path

    serve(scenario, tmp_path)


def test_a_device_that_is_not_served_is_told_so_and_led_nowhere(tmp_path: Path) -> None:
    """Seed 001 and v2rayNG: an empty list would leave the old servers in the app."""

    async def scenario(client: Client) -> None:
        member = await client.member(quota_bytes=1_000)
        made = await client.device(member)
        url = f"/sub/{made.token}"
        credential = (await client.state()).devices[0].credential
        await client.report(client.entry, 1, **{made.device: (400, 600)})
        await client.seen(lambda s: bool(s.usage))
        over = await client.get(url)
        assert "Quota" in over.lines()[0]
        assert over.headers["subscription-userinfo"].startswith("upload=400; download=600;")
        await client.operator.call(
            "POST", f"/access/devices/{made.device}/revoke", None, msgspec.Raw
        )
        await client.seen(lambda s: s.devices[0].standing.value == "revoked")
        for format in ("v2ray", "links", "sing-box", "mihomo", "xray-json", "outline"):
            got = await client.get(f"{url}/{format}")
            text = base64.b64decode(got.body) if format == "v2ray" else got.body
            assert got.status == 200
            assert credential.encode() not in text
            assert b"127.77.0.1" not in text, "no entry is shown any more"
            assert format == "outline" or NOBODY.encode() in text

    serve(scenario, tmp_path)


def test_a_lost_url_is_replaced_and_what_was_got_with_it_is_worthless(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.device(await client.member())
        before = (await client.get(f"/sub/{made.token}")).lines()[0]
        again: DeviceMade = await client.operator.call(
            "POST", f"/access/devices/{made.device}/token", None, DeviceMade
        )
        await client.seen(lambda s: s.devices[0].credential not in before)
        assert (await client.get(f"/sub/{made.token}")).status == 404
        after = (await client.get(f"/sub/{again.token}")).lines()[0]
        assert before.split("@")[0] != after.split("@")[0]

    serve(scenario, tmp_path)


def test_a_link_that_names_its_client_serves_no_other(tmp_path: Path) -> None:
    """Device limit: clients that send `x-hwid` are bound; those that send none are not."""

    async def scenario(client: Client) -> None:
        made = await client.device(await client.member())
        url = f"/sub/{made.token}"
        assert len((await client.get(url, x_hwid="phone-1")).lines()) == 1
        await client.seen(lambda s: bool(s.devices[0].client))
        assert "127.77.0.1" in (await client.get(url, x_hwid="phone-1")).lines()[0]
        assert "another" in (await client.get(url, x_hwid="phone-2")).lines()[0]
        assert "127.77.0.1" in (await client.get(url)).lines()[0]
        assert "phone-1" not in repr(await client.state())

    serve(scenario, tmp_path)


def test_a_first_fetch_is_in_the_store_before_it_is_answered(tmp_path: Path) -> None:
    """Epochs close by what is written there (`logic.access.epochs`)."""

    async def scenario(client: Client) -> None:
        made = await client.device(await client.member())
        url, store = f"/sub/{made.token}", client.hq.parts.store
        await client.get(url)
        kv = await store.get(f"/access/devices/{made.device}")
        assert kv is not None
        await client.seen(lambda s: s.devices[0].fetched_at > 0)
        first = await client.fetched(made.device)
        await client.get(url)
        await client.hq.parts.access.fetches.settle()
        again = await store.get(f"/access/devices/{made.device}")
        assert again is not None
        assert again.mod_revision == kv.mod_revision, "a loop of fetches writes nothing"
        await client.operator.call("POST", "/access/cells/c1/turn", None, Cell)
        await client.seen(lambda s: s.cells[0].newest().number == 2)
        await client.get(url)
        await client.hq.parts.access.fetches.settle()
        await client.seen(lambda s: s.devices[0].fetched_at > first)

    serve(scenario, tmp_path)


def test_a_cell_without_entries_answers_nobody_so_that_clients_keep_theirs(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.device(await client.member())
        await client.operator.revoke(client.entry.identity.node)
        await client.seen(lambda s: not s.entries)
        got = await client.get(f"/sub/{made.token}")
        assert (got.status, got.headers["retry-after"]) == (503, "60")

    serve(scenario, tmp_path)


def test_the_page_in_two_languages(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        made = await client.device(await client.member())
        url = f"/sub/{made.token}"
        page = await client.get(url, accept="text/html", accept_language="en")
        text = page.body.decode()
        assert f"https://sub.example.net{url}" in text
        assert "hiddify://import/" in text
        assert "<svg" in text
        assert "Active" in text
        assert "script" not in text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        russian = await client.get(url, accept="text/html", accept_language="ru-RU,ru;q=0.9")
        assert "Активна" in russian.body.decode()
        assert await client.fetched(made.device) == 0, "looking at the page gives no client paths"

    serve(scenario, tmp_path)


# --- Who is who ----------------------------------------------------------------------------------
async def _dump(client: Client, prefix: str) -> bytes:
    rows = (await client.hq.parts.store.range(prefix)).items
    return b"\n".join(kv.key.encode() + b"=" + kv.value for kv in rows)


def shared(one: bytes, other: bytes, size: int = 16) -> set[bytes]:
    """Strings of `size` letters of identifiers that stand in both."""
    letters = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")

    def grams(data: bytes) -> set[bytes]:
        found = (data[i : i + size] for i in range(len(data) - size + 1))
        return {gram for gram in found if letters.issuperset(gram)}

    return grams(one) & grams(other)


def linking(lines: Sequence[str], people: Sequence[str], pool: Sequence[str]) -> list[str]:
    """Lines that name somebody of the registry and something of the pool."""
    return [
        line for line in lines if any(p in line for p in people) and any(s in line for s in pool)
    ]


def test_registry_pool_and_logs_joined_link_no_member_to_a_slot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue: who is who. The registry is everything about members, devices and tokens; the rest of
    the control store (slots, servers, audit) and every log line is what it is joined with."""
    caplog.set_level(logging.DEBUG)

    async def scenario(client: Client) -> None:
        member: Member = await client.operator.call(
            "POST", "/access/members", MemberOrder(), Member
        )
        made = await client.device(member)
        await client.get(f"/sub/{made.token}")
        await client.get(f"/sub/{made.token}x")
        registry = b"".join(
            [await _dump(client, f"/access/{p}/") for p in ("members", "devices", "tokens")]
        )
        rows = (await client.hq.parts.store.range("/")).items
        pool = b"\n".join(
            kv.key.encode() + b"=" + kv.value
            for kv in rows
            if not kv.key.startswith(("/access/", "/audit/"))
        )
        assert member.id.encode() in registry
        assert not shared(registry, pool), "no identifier in both"
        everything = registry + b"".join(kv.key.encode() + kv.value for kv in rows)
        assert made.token.encode() not in everything, "the token is nowhere, only its hash"
        assert made.token not in caplog.text
        planted = pool + b"/slots/x=" + member.id.encode()
        assert shared(registry, planted) == {member.id.encode()}, "control: a planted link is seen"
        state = await client.state()
        people = [member.id, made.device, state.devices[0].credential]
        nodes = [base32(client.entry.identity.node), client.entry.identity.node.hex()]
        audit = [kv.value.decode("latin-1") for kv in rows if kv.key.startswith("/audit/")]
        lines = audit + caplog.text.splitlines()
        assert any(member.id in line for line in lines), "the audit log knows of the member"
        assert any(name in line for name in nodes for line in lines), "and, elsewhere, of the node"
        assert not linking(lines, people, [*nodes, "slot"])
        planted_line = f"{member.id} has slot 00ff"
        assert linking([*lines, planted_line], people, [*nodes, "slot"]) == [planted_line]

    serve(scenario, tmp_path)
