"""Joining (D8): whom a joiner believes, what it shows whom, and a crash at every step."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from pathlib import Path

import msgspec
import pytest
from tests.node.stand_in_hq import NAME, Serving, TestClock, stand_in
from tests.node.test_agent import LISTEN, serving_token
from tests.node.test_machine import WANTED, alert
from tests.rim.pki import NOW, Pki

from holdfast.crypto.certificates import csr_spki, fingerprint
from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.rootset import link_roots
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.fleet.model import Role, Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.node import membership
from holdfast.node.home import Home, Member
from holdfast.node.machine import Memory
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.envelope import sign
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.token import JoinToken

SECRETS = ("identity.key", "tls/current/key.pem")


async def join(home: Home, serving: Serving, token: JoinToken | None = None) -> Member:
    return await membership.join(
        home,
        token or serving_token(serving),
        listen=LISTEN,
        addresses=("192.0.2.7:7443",),
        provider="alder",
        clock=TestClock(NOW),
        entropy=SystemEntropy(),
    )


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with TestClock(NOW).real_timeout(60):
            await work

    asyncio.run(main())


def test_a_joined_node_has_what_it_needs_and_shows_its_secrets_to_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            home = Home(tmp_path / "node")
            member = await join(home, serving)
            assert (member.name, member.role, member.provider) == (NAME, Role.RELAY, "alder")
            assert home.member() == member
            assert home.roots() == serving.hq.pki.roots
            name = home.certificate().name
            assert name is not None
            assert name.node == member.node
            for name in SECRETS:
                assert (home.directory / name).stat().st_mode & 0o777 == 0o600
            assert home.directory.stat().st_mode & 0o777 == 0o700
            assert not (home.directory / "tls" / "pending.pem").exists()
            (request,) = serving.hq.joins
            assert request.addresses == ("192.0.2.7:7443",)
            sent = b"".join((request.csr, request.identity, request.identity_signature))
            for name in SECRETS:
                assert (home.directory / name).read_bytes() not in sent

    run(main())


def test_a_server_without_the_tokens_root_never_sees_the_secret(tmp_path: Path) -> None:
    """D8: fetch the root unverified, compare the fingerprint, reconnect verified."""

    async def main() -> None:
        async with stand_in(TestClock(NOW), Pki(b"x")) as impostor:
            token = serving_token(impostor, roots=(fingerprint(Pki(b"r").root.certificate),))
            with pytest.raises(PeerFault, match="fingerprint"):
                await join(Home(tmp_path / "node"), impostor, token)
            assert impostor.hq.joins == []

    run(main())


def test_an_impostor_that_copies_the_root_has_no_certificate_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW), Pki(b"x")) as impostor:
            honest = Pki(b"r")
            impostor.hq.roots = honest.roots
            token = serving_token(impostor, roots=(fingerprint(honest.root.certificate),))
            with pytest.raises(PeerFault):
                await join(Home(tmp_path / "node"), impostor, token)
            assert impostor.hq.joins == []

    run(main())


def test_a_lost_reply_is_asked_for_again_with_the_same_keys(tmp_path: Path) -> None:
    """D8: same key replays."""

    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            serving.hq.refusal = OperationFault("right after burning the token")
            with pytest.raises(OperationFault):
                await join(Home(tmp_path / "node"), serving)
            serving.hq.refusal = None
            await join(Home(tmp_path / "node"), serving)
            first, second = serving.hq.joins
            assert (first.csr, first.identity, first.secret) == (
                second.csr,
                second.identity,
                second.secret,
            )

    run(main())


@pytest.mark.parametrize("step", ["pin_roots", "install", "save_member", "forget_pending"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_leads_to_the_same_node(
    tmp_path: Path, step: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D8: nothing on the way makes a second identity or a second key."""

    class Crash(Exception):
        pass

    def crash(self: Home, *given: object) -> None:
        if after:
            getattr(Original, step)(self, *given)
        raise Crash

    Original = type("Original", (), {step: getattr(Home, step)})

    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            with monkeypatch.context() as patch:
                patch.setattr(Home, step, crash)
                with pytest.raises(Crash):
                    await join(Home(tmp_path / "node"), serving)
            home = Home(tmp_path / "node")
            member = home.member()
            if member is None:
                member = await join(home, serving)
            assert len({request.identity for request in serving.hq.joins}) == 1
            assert len({request.csr for request in serving.hq.joins}) == 1
            assert home.certificate().spki == csr_spki(serving.hq.joins[0].csr)
            assert member.node == home.identity(SystemEntropy()).node
            assert home.renewal_key(SystemEntropy()).spki() != home.certificate().spki

    run(main())


def test_a_certificate_about_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            certify = serving.hq._certify
            monkeypatch.setattr(serving.hq, "_certify", lambda csr, _: certify(csr, b"z" * 32))
            with pytest.raises(PeerFault, match="somebody else"):
                await join(Home(tmp_path / "node"), serving)
            assert Home(tmp_path / "node").member() is None

    run(main())


def test_a_role_that_the_token_did_not_say_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            with pytest.raises(PeerFault, match="replica"):
                await join(
                    Home(tmp_path / "node"), serving, serving_token(serving, role=Role.REPLICA)
                )

    run(main())


def test_a_new_root_needs_the_old_ones_word(tmp_path: Path) -> None:
    """D5: roots are a set; only a link made with the old root's key makes it grow."""

    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            old, new = serving.hq.pki, Pki(b"q")
            link = link_roots(old.root, new.root.certificate, NOW)
            home = Home(tmp_path / "node")
            serving.hq.roots = (*old.roots, *new.roots)
            token = serving_token(serving, roots=tuple(map(fingerprint, old.roots)))
            member = await join(home, serving, token)
            assert home.roots() == old.roots, "HQ alone adds nothing"
            for offered, pinned in (
                (new.roots, old.roots),
                ((*old.roots, *new.roots, link), (*old.roots, *new.roots)),
                (new.roots, new.roots),
            ):
                serving.hq.roots = offered
                hq = membership.connect(home, member, TestClock(NOW))
                with contextlib.suppress(PeerFault):
                    await membership.renew(
                        home, member, hq, clock=TestClock(NOW), entropy=SystemEntropy()
                    )
                await hq.close()
                assert home.roots() == pinned

    run(main())


def test_leaving_reaches_hq_under_the_nodes_own_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            home = Home(tmp_path / "node")
            member = await join(home, serving)
            hq = membership.connect(home, member, TestClock(NOW))
            await membership.leave(hq, "moving house")
            await hq.close()
            assert [request.reason for request in serving.hq.leaves] == ["moving house"]

    run(main())


def test_a_node_calls_no_headquarters_that_its_memory_excludes(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            home = Home(tmp_path / "node")
            member = await join(home, serving)
            pki = serving.hq.pki
            entry = Revoked(
                b"", cert_info(pki.intermediate.certificate).serial, b"", "stolen", int(NOW)
            )
            listed = Revocations(member.network, Version(0, 1), int(NOW), (entry,))
            staple = Staple(sign(SigningKey(b"s" * 32), Type.REVOCATIONS, listed), b"")
            home.save_memory(Memory(msgspec.structs.replace(WANTED, revocations=staple), ()))
            hq = membership.connect(home, member, TestClock(NOW))
            with pytest.raises(PeerFault) as caught:
                await membership.leave(hq, "moving house")
            assert caught.value.code == "revoked"
            with pytest.raises(PeerFault):  # nor is its word believed that this node is out
                await membership.exclusion(home, member, TestClock(NOW))
            await hq.close()
            control = membership.connect(
                home, member, TestClock(NOW), RevocationList(member.network)
            )
            await membership.leave(control, "moving house")
            await control.close()

    run(main())


def test_old_pairs_go_and_the_one_before_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with stand_in(TestClock(NOW)) as serving:
            home = Home(tmp_path / "node")
            member = await join(home, serving)
            hq = membership.connect(home, member, TestClock(NOW))
            for _ in range(3):
                await membership.renew(
                    home, member, hq, clock=TestClock(NOW), entropy=SystemEntropy()
                )
            await hq.close()
            pairs = [path for path in (home.directory / "tls").iterdir() if not path.is_symlink()]
            assert len(pairs) == 2
            assert home.certificate().spki == csr_spki(serving.hq.renewals[-1].csr)

    run(main())


def test_damaged_files_say_so(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.member() is None
    assert home.report() is None
    with pytest.raises(UsageError, match="join first"):
        home.roots()
    with pytest.raises(UsageError, match="join first"):
        home.chain()
    home.identity_file.write_bytes(b"short")
    with pytest.raises(OperationFault, match="damaged"):
        home.identity(SystemEntropy())
    (tmp_path / "member.json").write_text("{")
    with pytest.raises(OperationFault, match="damaged"):
        home.member()
    (tmp_path / "desired.msgpack").write_bytes(b"\xc1")
    assert home.memory().desired is None
    assert (tmp_path / "desired.msgpack.unreadable").exists()


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.save_memory(Memory(desired=WANTED))
    stamp = (tmp_path / "desired.msgpack").stat().st_ino
    home.save_memory(Memory(desired=WANTED, alerts=(alert(),)))
    assert (tmp_path / "desired.msgpack").stat().st_ino == stamp
    assert Home(tmp_path).memory() == Memory(desired=WANTED, alerts=(alert(),))
    home.save_memory(Memory(desired=WANTED))
    assert Home(tmp_path).memory() == Memory(desired=WANTED)
