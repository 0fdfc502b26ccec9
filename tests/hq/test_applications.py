"""Strangers who ask to join, under each policy, over the API and the admin port (D8)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.hq.headquarters import Node, Operator, make_home, make_root, serving

from holdfast.errors import PeerFault, UsageError
from holdfast.hq.admin import Answer, Done
from holdfast.hq.audit import audit_rows
from holdfast.hq.main import Headquarters
from holdfast.hq.tokens import KEPT_S
from holdfast.limits import APPLICATIONS_PER_OWNER_MAX
from holdfast.logic.audit import export_line
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import TokenRow
from holdfast.logic.trust.admission import Policy
from holdfast.logic.trust.join import token_hash
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.rim.https import JsonClient
from holdfast.wire.hq import Application, ApplicationList, ApplicationReply, Vote
from holdfast.wire.pool import Empty
from holdfast.wire.token import parse_token

ASK = Application(Role.REPLICA, "ada", "I have a server and an hour a week")


class World:
    """A headquarters, its operator, and a stranger's way to it."""

    def __init__(self, hq: Headquarters, operator: Operator) -> None:
        self.hq, self.operator = hq, operator
        self.roots = hq.parts.authority.roots
        self.stranger = JsonClient(hq.parts.api_addresses, self.roots, None, SystemClock())

    def node(self) -> Node:
        return Node(self.hq.parts.api_addresses, self.roots)

    async def ask(self, application: Application = ASK) -> ApplicationReply:
        return await self.stranger.call("POST", "/v1/join-requests", application, ApplicationReply)

    async def look(self, secret: str) -> ApplicationReply:
        return await self.stranger.call(
            "GET", f"/v1/join-requests/{secret}", None, ApplicationReply
        )

    async def answer(self, id: str, verb: str, reason: str) -> Done:
        done: Done = await self.operator.call(
            "POST", f"/applications/{id}/{verb}", Answer(reason), Done
        )
        return done

    async def listed(self) -> ApplicationList:
        found: ApplicationList = await self.operator.call(
            "GET", "/applications", None, ApplicationList
        )
        return found

    async def verbs(self) -> list[str]:
        return [export_line(row).verb async for row in audit_rows(self.hq.parts.store)]


def run(policy: Policy, scenario: Callable[[World], Awaitable[None]], directory: Path) -> None:
    async def main() -> None:
        home = make_home(directory / "hq", make_root(), admission=policy)
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            world = World(hq, Operator(home))
            await scenario(world)
            await world.stranger.close()

    asyncio.run(main())


def test_invite_is_the_default_and_takes_no_applications(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(PeerFault) as caught:
            await world.ask()
        assert caught.value.code == "admission"
        assert (await world.listed()).items == ()

    run(Policy.INVITE, scenario, tmp_path)


def test_approve(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        asked = await world.ask()
        assert (asked.state, asked.token) == ("queued", "")
        (item,) = (await world.listed()).items
        assert (item.owner, item.reason, item.region) == ("ada", ASK.reason, "eu")
        assert item.id not in asked.id, "what the operator sees fetches nothing"
        with pytest.raises(PeerFault):
            await world.look(item.id)
        await world.answer(item.id, "approve", "welcome")
        stored = (await world.hq.parts.store.range("/")).items
        first = await world.look(asked.id)
        second = await world.look(asked.id)
        assert (second.state, second.reason) == ("approved", "welcome")
        assert first.token != second.token
        for reply in (first, second):
            secret = parse_token(reply.token).secret
            assert not any(secret in kv.value for kv in stored)
        with pytest.raises(PeerFault) as caught:
            await world.node().join(parse_token(first.token))
        assert caught.value.code == "token", "fetching again ended the one before"
        joined = await world.node().join(parse_token(second.token))
        assert (joined.name, joined.owner, joined.role) == ("replica-eu-001", "ada", Role.REPLICA)
        assert (await world.look(asked.id)).token == "", "one application, one node"
        with pytest.raises(UsageError):
            await world.answer(item.id, "decline", "changed my mind")
        found = await world.verbs()
        assert {"application.applied", "application.admitted", "token.created"} <= set(found)

    run(Policy.APPROVE, scenario, tmp_path)


def test_one_approval_admits_one_machine_for_ever(tmp_path: Path) -> None:
    """D8: the used token is forgotten after a month; the applicant's secret mints no other."""

    async def scenario(world: World) -> None:
        asked = await world.ask()
        await world.node().join(parse_token((await world.look(asked.id)).token))
        tokens = world.hq.parts.tokens
        tokens._clock = ManualClock(wall_s=world.hq.clock.wall() + KEPT_S + 25 * 3_600)
        assert await tokens.forget_old() == 1
        tokens._clock = world.hq.clock
        assert (await world.look(asked.id)).token == ""
        assert await tokens.items() == ()

    run(Policy.OPEN, scenario, tmp_path)


def test_a_token_that_was_taken_back_is_not_minted_anew(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        asked = await world.ask()
        token = parse_token((await world.look(asked.id)).token)
        await world.hq.parts.tokens.revoke(token_hash(token.secret).hex())
        assert (await world.look(asked.id)).token == ""

    run(Policy.OPEN, scenario, tmp_path)


def test_fetching_at_once_leaves_one_token(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        asked = await world.ask()
        replies = await asyncio.gather(
            *(world.hq.parts.applications.state(asked.id) for _ in range(5)),
            return_exceptions=True,
        )
        assert all(isinstance(reply, ApplicationReply | PeerFault) for reply in replies)
        assert len(await world.hq.parts.tokens.items()) == 1
        assert (await world.look(asked.id)).token

    run(Policy.OPEN, scenario, tmp_path)


def test_applying_at_once_passes_no_cap(tmp_path: Path) -> None:
    """Every application counts those before it, also those of the same moment."""

    async def scenario(world: World) -> None:
        asked = await asyncio.gather(
            *(
                world.hq.parts.applications.apply(ASK)
                for _ in range(APPLICATIONS_PER_OWNER_MAX + 8)
            ),
            return_exceptions=True,
        )
        refused = [item.code for item in asked if isinstance(item, PeerFault)]
        assert refused == ["too-many"] * 8
        assert len((await world.listed()).items) == APPLICATIONS_PER_OWNER_MAX

    run(Policy.APPROVE, scenario, tmp_path)


def test_decline_gives_a_reason(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        asked = await world.ask()
        (item,) = (await world.listed()).items
        with pytest.raises(UsageError):
            await world.answer(item.id, "decline", "")
        with pytest.raises(UsageError):
            await world.answer("nobody", "approve", "")
        await world.answer(item.id, "decline", "we are full")
        told = await world.look(asked.id)
        assert (told.state, told.reason, told.token) == ("declined", "we are full", "")

    run(Policy.APPROVE, scenario, tmp_path)


def test_open(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        asked = await world.ask()
        assert asked.state == "approved"
        token = parse_token((await world.look(asked.id)).token)
        assert (await world.node().join(token)).owner == "ada"

    run(Policy.OPEN, scenario, tmp_path)


def test_vote(tmp_path: Path) -> None:
    """Owners of member nodes decide; an owner with many servers has one vote."""

    async def scenario(world: World) -> None:
        with pytest.raises(UsageError, match="vote"):
            await world.operator.token()
        founders = []
        for index, owner in enumerate(("bo", "bo", "cy", "di")):
            node = world.node()
            token = await world.hq.parts.tokens.create(_founder(world, owner))
            await node.join(token, addresses=(f"127.65.0.{index + 1}:7443",))
            founders.append(node)
        asked = await world.ask()
        members = [node.client() for node in founders]
        (item,) = (await members[0].call("GET", "/v1/applications", None, ApplicationList)).items
        path = f"/v1/applications/{item.id}/votes"
        with pytest.raises(PeerFault):
            await world.stranger.call("POST", path, Vote(True), Empty)
        await members[0].call("POST", path, Vote(True), Empty)
        await members[1].call("POST", path, Vote(True), Empty)
        (item,) = (await world.listed()).items
        assert (item.yes, item.no, item.state) == (1, 0, "queued"), "one owner, one vote"
        with pytest.raises(UsageError):
            await world.answer(item.id, "approve", "I am the operator")
        await members[2].call("POST", path, Vote(True), Empty)
        told = await world.look(asked.id)
        assert told.state == "approved"
        assert (await world.node().join(parse_token(told.token))).owner == "ada"
        with pytest.raises(PeerFault):
            await members[3].call("POST", path, Vote(False), Empty)
        for client in members:
            await client.close()

    run(Policy.VOTE, scenario, tmp_path)


def _founder(world: World, owner: str) -> TokenRow:
    expires_at = world.hq.clock.wall() + 600
    return TokenRow(Role.RELAY, "", "eu", "", owner, "", expires_at)


BAD = [
    Application(Role.HQ, "ada", "let me lead"),
    Application(Role.RELAY, "operator", "I am you"),
    Application(Role.RELAY, "", "nobody"),
    Application(Role.RELAY, "ada", "x" * 5_000),
    Application(Role.RELAY, "a\x00da", "control"),
    Application(Role.RELAY, "ada", "where", region="mars"),
    Application(Role.RELAY, "ada", "friend", sponsor="nobody I know"),
]


def test_applications_that_will_not_do(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for application in BAD:
            with pytest.raises(PeerFault):
                await world.ask(application)
        for secret in ("x", "%2e%2e", "a" * 32):
            with pytest.raises(PeerFault):
                await world.look(secret)
        assert (await world.listed()).items == ()

    run(Policy.APPROVE, scenario, tmp_path)
