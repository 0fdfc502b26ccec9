"""The bot between a Bot API server and a headquarters, both over real HTTP."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.bot.fake_telegram import FakeTelegram
from tests.hq.headquarters import ENTROPY, Operator, run
from tests.hq.test_subscriptions import Client

from holdfast.bot.contacts import Contacts
from holdfast.bot.words import EN, RU
from holdfast.cli.bot import run as run_bot
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import OperatorMade
from holdfast.rim.clock import SystemClock
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.ports import free_port
from holdfast.rim.telegram import Telegram, read_token

TOKEN = "7000000001:AAE-secret_part_of_a_bot_token_0000"
ADA, BOB, BOSS, GROUP = 7_261_534_890, 7_261_534_891, 7_261_534_892, -100_726_153
Scenario = Callable[[Client, FakeTelegram], Awaitable[None]]


def serve(scenario: Scenario, directory: Path) -> None:
    async def inside(hq: Headquarters, operator: Operator) -> None:
        client = Client(hq, operator)
        await client.found()
        telegram = FakeTelegram(TOKEN)
        api = await telegram.start()
        token_file = directory / "token"
        token_file.write_text(TOKEN + "\n")
        home = directory / "hq"
        contacts = Contacts(home / "bot", ENTROPY)
        contacts.change(operators=(contacts.contact(BOSS),))
        bot = asyncio.create_task(run_bot(home, token_file, api, look_s=0.05))
        told = asyncio.create_task(scenario(client, telegram))
        try:
            done, _ = await asyncio.wait({bot, told}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            bot.cancel()
            told.cancel()
            await asyncio.gather(bot, told, return_exceptions=True)
            await telegram.stop()

    url = "https://sub.example.net"
    run(inside, directory, subscriptions_listen="127.0.0.1:0", subscriptions_url=url)


def token_in(text: str) -> str:
    found = re.search(r"https://sub\.example\.net/sub/(\S+)", text)
    assert found is not None, text
    return found[1]


async def admit(telegram: FakeTelegram, user: int) -> None:
    """From nobody to member, as people do it."""
    await telegram.say(BOSS, "/start")
    code = (await telegram.say(user, "/join I am Ada")).split()[3].rstrip(".")
    assert (await telegram.reply(BOSS)).endswith(f"{code}: I am Ada")
    assert await telegram.say(BOSS, f"/approve {code}") == "Done."
    assert "/subscription" in await telegram.reply(user)


def test_from_a_request_to_a_subscription_and_a_lost_link(tmp_path: Path) -> None:
    async def scenario(client: Client, telegram: FakeTelegram) -> None:
        assert "/join" in await telegram.say(ADA, "/subscription")
        await admit(telegram, ADA)
        assert "already" in await telegram.say(ADA, "/join")
        token = token_in(await telegram.say(ADA, "/subscription"))
        await client.seen(lambda s: len(s.devices) == 1)
        assert (await client.get(f"/sub/{token}")).lines()[0].startswith("vless://")
        assert "once" in await telegram.say(ADA, "/subscription")
        again = token_in(await telegram.say(ADA, "/lost"))
        await client.seen(lambda s: client.hq.parts.access.book.device_with(token) is None)
        assert (await client.get(f"/sub/{token}")).status == 404
        await client.get(f"/sub/{again}")
        token_in(await telegram.say(ADA, "/device laptop"))
        await client.seen(lambda s: len(s.devices) == 2)
        status = await telegram.say(ADA, "/status")
        assert status.startswith("Active. Used 0 B of no limit.")
        assert "2. laptop" in status
        assert "Which" in await telegram.say(ADA, "/lost")
        assert "Which" in await telegram.say(ADA, "/lost 3")

    serve(scenario, tmp_path)


def test_what_calls_for_an_operator_is_told_once(tmp_path: Path) -> None:
    async def scenario(client: Client, telegram: FakeTelegram) -> None:
        await telegram.say(BOSS, "/start")
        await telegram.say(ADA, "/start")
        book = client.hq.parts.alerts
        assert book is not None
        order = {"name": "bob", "role": "operator"}
        made = await client.operator.call("POST", "/operators", order, OperatorMade)
        admin = LoopbackClient(client.hq.admin_address, made.key, SystemClock())
        body = {"reason": "stolen", "node": "a" * 52}
        assert (await admin.exchange("POST", "/admin/v1/revoke", body))[0] == 202
        await book.look()
        told = await telegram.reply(BOSS)
        assert told.startswith("notice: ")
        assert "bob asked for POST /revoke" in told
        assert "Next: holdfast hq agree" in told
        await asyncio.sleep(0.3)
        assert "Active" not in await telegram.say(BOSS, "/status"), "and nothing before it"

    serve(scenario, tmp_path)


def test_alerts_reach_whom_they_concern_in_their_language(tmp_path: Path) -> None:
    async def scenario(client: Client, telegram: FakeTelegram) -> None:
        await admit(telegram, ADA)
        assert (await telegram.say(ADA, "/status", "ru")).startswith("Активна")
        (member,) = (await client.seen(lambda s: len(s.members) == 1)).members
        path = f"/access/members/{member.id}/standing"
        await client.operator.call("POST", path, {"standing": "suspended"}, msgspec.Raw)
        assert await telegram.reply(ADA) == "Ваша подписка: Приостановлена."
        assert "quiet" in await telegram.say(ADA, "/alerts off")
        await client.operator.call("POST", path, {"standing": "active"}, msgspec.Raw)
        await client.seen(lambda s: s.members[0].standing.value == "active")
        assert (await telegram.say(ADA, "/status")).startswith("Active"), "and nothing before it"

    serve(scenario, tmp_path)


def test_what_strangers_and_groups_get(tmp_path: Path) -> None:
    async def scenario(client: Client, telegram: FakeTelegram) -> None:
        await telegram.say(BOSS, "/start")
        code = (await telegram.say(ADA, "/join")).split()[3].rstrip(".")
        await telegram.reply(BOSS)
        for command in (f"/approve {code}", f"/deny {code}", "/requests", "/nodes"):
            assert code not in await telegram.say(BOB, command), "no operator, no answer"
        assert not (await client.state()).members
        telegram.write(ADA, "/subscription", chat=GROUP)
        assert "private" in await telegram.reply(GROUP)
        assert "Operator" not in await telegram.say(ADA, "hello")
        assert "c1: active" in await telegram.say(BOSS, "/nodes")
        assert await telegram.say(BOSS, f"/deny {code}") == "Done."
        assert "declined" in await telegram.reply(ADA)

    serve(scenario, tmp_path)


def test_telegram_at_its_worst(tmp_path: Path) -> None:
    """Floods, users who blocked the bot and outages end nothing."""

    async def scenario(client: Client, telegram: FakeTelegram) -> None:
        await telegram.say(BOSS, "/start")
        telegram.flood = 1
        assert "/join" in await telegram.say(ADA, "/help")
        telegram.blocked.add(ADA)
        telegram.write(ADA, "/help")
        telegram.broken = 1
        assert "/join" in await telegram.say(BOB, "/help")
        for _ in range(40):
            telegram.write(BOB, "/help")
        await telegram.say(BOSS, "/help")
        assert telegram.sent[BOB].qsize() <= 21, "a user who floods is not answered for ever"

    serve(scenario, tmp_path)


def test_no_token_and_no_telegram_id_is_written_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(client: Client, telegram: FakeTelegram) -> None:
        await admit(telegram, ADA)
        token = token_in(await telegram.say(ADA, "/subscription"))
        telegram.broken = 1
        await telegram.say(ADA, "/status")
        rows = (await client.hq.parts.store.range("/")).items
        store = b"".join(kv.key.encode() + kv.value for kv in rows)
        files = b"".join(p.read_bytes() for p in (tmp_path / "hq" / "bot").iterdir())
        for secret in (token, TOKEN, TOKEN.partition(":")[2], str(ADA), str(BOSS)):
            for place in (store, files, caplog.text.encode()):
                assert secret.encode() not in place, secret
        for packed in (ADA.to_bytes(8, "big"), ADA.to_bytes(8, "little")):
            assert packed not in store
            assert packed not in files
        contact = (await client.state()).members[0].contact
        assert len(contact) == 32
        assert contact in store, "control: what is kept is found"
        logging.getLogger("holdfast.bot").info("planted %s", TOKEN)
        assert TOKEN in caplog.text, "control: a token that is logged is seen"

    serve(scenario, tmp_path)


def test_faults_do_not_quote_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("nonsense")
    with pytest.raises(UsageError, match="BotFather"):
        read_token(tmp_path / "token")

    async def enter(api: str, token: str) -> None:
        async with Telegram(token, SystemClock(), api):
            pass

    async def main() -> None:
        telegram = FakeTelegram(TOKEN)
        api = await telegram.start()
        other = TOKEN[:-1] + "1"
        nowhere = f"http://127.0.0.1:{free_port('127.0.0.1', ENTROPY)}"
        for where, token, kind in (
            (api, other, UsageError),
            (nowhere, TOKEN, OperationFault),
        ):
            with pytest.raises(kind) as caught:
                await enter(where, token)
            assert token.partition(":")[2] not in f"{caught.value}{caught.value.__cause__}"
        await enter(api, TOKEN)
        await telegram.stop()

    asyncio.run(main())


def test_both_languages_say_all_of_it() -> None:
    assert set(EN) == set(RU)
    for key, text in EN.items():
        assert (
            re.findall(r"{\w+}", text)
            and set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", RU[key]))
        ) or "{" not in text + RU[key]
