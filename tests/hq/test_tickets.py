"""HQ signs tickets blindly, against grants, and cannot say whose is whose (D17; issue 3 §2)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.hq.headquarters import ENTROPY, NETWORK, Operator, make_home, make_root, serving

from holdfast.crypto.blindrsa import BlindPublicKey
from holdfast.errors import PeerFault, UsageError
from holdfast.fabric.database import Database
from holdfast.fabric.wallet import SCHEMA, Wallet
from holdfast.hq.admin import GrantMade, GrantOrder
from holdfast.hq.main import Headquarters
from holdfast.relay.tickets import TicketBook
from holdfast.rim.clock import SystemClock
from holdfast.rim.https import JsonClient
from holdfast.wire.hq import StapleReply, TicketTerms
from holdfast.wire.logged import leaf_of
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple
from holdfast.wire.tickets import (
    Grant,
    TicketClass,
    TicketKeys,
    TicketReply,
    TicketRequest,
    parse_grant,
    parse_ticket,
    ticket_message,
)

PLAIN = TicketTerms("plain", 1 << 30, 200.0, 4_000.0)
RICH = TicketTerms("rich", 1 << 34, 200.0, 4_000.0)
CLOCK = SystemClock()


class Member:
    """Somebody with a wallet and a way to HQ."""

    def __init__(self, hq: Headquarters) -> None:
        self.wallet = Wallet(Database(None, SCHEMA), CLOCK)
        self.client = JsonClient(hq.parts.api_addresses, hq.parts.authority.roots, None, CLOCK)
        self.roots = hq.parts.authority.roots

    async def keys(self) -> TicketKeys:
        staple = (await self.client.call("GET", "/v1/ticket-keys", None, StapleReply)).staple
        return verify_staple(self.roots, staple, Type.TICKET_KEYS, TicketKeys, CLOCK.wall())

    async def key(self, kind: str = "plain") -> TicketClass:
        return next(item for item in (await self.keys()).classes if item.name == kind)

    async def ask(self, request: TicketRequest) -> TicketReply:
        return await self.client.call("POST", "/v1/tickets", request, TicketReply)

    async def draw(self, grant: Grant, count: int) -> TicketRequest:
        item = await self.key(grant.kind)
        asked = self.wallet.blind(NETWORK, item, count, ENTROPY)
        blinded = tuple(one.blinded for one in asked)
        request = TicketRequest(grant.secret, BlindPublicKey(item.spki).id, blinded)
        reply = await self.ask(request)
        self.wallet.take(NETWORK, item, asked, reply.signatures)
        return request


async def grant(operator: Operator, tickets: int, kind: str = "plain") -> Grant:
    order = GrantOrder(kind, tickets, "ada")
    made = await operator.call("POST", "/grants", order, GrantMade)
    return parse_grant(made.grant)


def run(scenario: Any, directory: Path, tickets: tuple[TicketTerms, ...] = (PLAIN, RICH)) -> None:
    async def main() -> None:
        home = make_home(directory / "hq", make_root(), tickets=tickets)
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            member = Member(hq)
            try:
                await scenario(hq, Operator(home), member)
            finally:
                await member.client.close()

    asyncio.run(main())


def test_a_member_draws_what_the_grant_is_good_for_and_a_server_takes_it(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator, member: Member) -> None:
        good = await grant(operator, 3)
        request = await member.draw(good, 2)
        assert member.wallet.count(NETWORK) == 2
        again = await member.ask(request)
        assert again.left == 1, "a repeated request is answered alike and charged once"
        tags = [bytes([n]) * 32 for n in (1, 2, 3)]
        one, two, none = (member.wallet.ticket(NETWORK, tag) for tag in tags)
        assert member.wallet.ticket(NETWORK, tags[0]) == one, "a tag keeps its ticket"
        assert one != two
        assert none == b""
        server = TicketBook(None, NETWORK, CLOCK)
        server.take_keys(await member.keys())
        assert server.admit(tags[0], one).group_bytes_max == PLAIN.group_bytes_max
        with pytest.raises(PeerFault, match="another tag"):
            server.admit(tags[1], one)
        with pytest.raises(PeerFault, match="1 tickets left"):
            await member.draw(good, 2)
        await member.draw(good, 1)
        with pytest.raises(PeerFault, match="0 tickets left"):
            await member.draw(good, 1)

    run(scenario, tmp_path)


def test_grants_that_are_none(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator, member: Member) -> None:
        good = await grant(operator, 1)
        forged = Grant(NETWORK, "plain", 1, good.expires_at, b"x" * 32)
        with pytest.raises(PeerFault, match="no such grant"):
            await member.draw(forged, 1)
        richer = Grant(NETWORK, "rich", 1, good.expires_at, good.secret)
        with pytest.raises(PeerFault, match="another class"):
            await member.draw(richer, 1)
        with pytest.raises(UsageError, match="no ticket class"):
            await grant(operator, 1, "golden")
        with pytest.raises(UsageError, match="1 to"):
            await grant(operator, 0)
        item = await member.key()
        key = BlindPublicKey(item.spki).id
        for blinded in ((), (b"short",), (bytes(256),), (b"\xff" * 256,), (bytes(256),) * 33):
            with pytest.raises(PeerFault):
                await member.ask(TicketRequest(good.secret, key, blinded))
        await member.draw(good, 1)

    run(scenario, tmp_path)


def test_the_keys_are_logged_few_and_outlive_a_restart(tmp_path: Path) -> None:
    """Everybody must see the same keys: one of its own for each member would name them."""

    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root(), tickets=(PLAIN,))
        found = []
        for _ in range(2):
            async with serving(home) as hq:
                member = Member(hq)
                found.append(await member.keys())
                staple = hq.parts.desired.ticket_keys
                assert staple is not None
                assert hq.parts.log.index(leaf_of(staple.signed)) is not None
                await member.client.close()
        assert found[0] == found[1]
        many = tuple(found[0].classes) * 9
        with pytest.raises(PeerFault, match="at most"):
            TicketKeys(NETWORK, found[0].version, 1, many).check()

    asyncio.run(main())


def test_a_network_without_classes_has_no_office(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator, member: Member) -> None:
        with pytest.raises(PeerFault) as caught:
            await member.keys()
        assert caught.value.code == "not-found"
        with pytest.raises(UsageError, match="add some to hq"):
            await grant(operator, 1)

    run(scenario, tmp_path, ())


def test_what_headquarters_saw_and_what_servers_saw_have_nothing_in_common(tmp_path: Path) -> None:
    """All that HQ saw: grant, key, blinded messages, blind signatures. All that a server saw: key,
    prefix, signature, tag. For every pair of one and the other a blinding factor exists that makes
    them one ticket, so that no pair is likelier than another. The control draws without blinding,
    and HQ finds each ticket again."""

    async def scenario(hq: Headquarters, operator: Operator, member: Member) -> None:
        people = [Member(hq) for _ in range(4)]
        hq_saw: list[tuple[int, int]] = []
        server_saw: list[tuple[bytes, int]] = []
        for n, person in enumerate(people):
            one = await grant(operator, 1)
            request = await person.draw(one, 1)
            reply = await person.ask(request)
            hq_saw.append((number(request.blinded[0]), number(reply.signatures[0])))
            ticket = parse_ticket(person.wallet.ticket(NETWORK, bytes([n]) * 32))
            server_saw.append((ticket.prefix, number(ticket.signature)))
            await person.client.close()
        public = BlindPublicKey((await member.key()).spki)
        assert [fits(public, a, b) for a in hq_saw for b in server_saw] == [True] * 16
        seen = {blinded for blinded, _ in hq_saw} | {signed for _, signed in hq_saw}
        assert not {signature for _, signature in server_saw} & seen
        rest = member.wallet._database.run("select inverse from tickets where signature not null")
        assert not [row for row in rest if row[0]], "nor does the wallet keep what links them"

        good = await grant(operator, 4)
        plain = [unblinded(public, bytes([n]) * 32) for n in range(4)]
        control = await member.ask(TicketRequest(good.secret, public.id, tuple(plain)))
        hq_saw = list(zip(map(number, plain), map(number, control.signatures), strict=True))
        tickets = [number(signature) for signature in control.signatures]
        linked = [[signed == ticket for _, signed in hq_saw].index(True) for ticket in tickets]
        assert linked == [0, 1, 2, 3], "control: without blinding every ticket is known again"

    run(scenario, tmp_path)


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def fits(public: BlindPublicKey, hq: tuple[int, int], server: tuple[bytes, int]) -> bool:
    """Whether some blinding factor leads from what HQ saw to what the server saw."""
    (blinded, answer), (_, signature) = hq, server
    n, e = public._n, public._e
    factor = answer * pow(signature, -1, n) % n
    return pow(signature, e, n) * pow(factor, e, n) % n == blinded


def unblinded(public: BlindPublicKey, prefix: bytes) -> bytes:
    """A ticket's message with the blinding factor 1, which `blind` itself refuses."""
    message = ticket_message(prefix, NETWORK)
    with pytest.raises(UsageError):
        public.blind(message, bytes(48), (1).to_bytes(public.factor_bytes, "big"))
    two, inverse = public.blind(message, bytes(48), (2).to_bytes(public.factor_bytes, "big"))
    once = number(two) * pow(inverse, public._e, public._n) % public._n
    return once.to_bytes(256, "big")
