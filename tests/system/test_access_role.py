"""A core's proxies without a headquarters: renewal, trust and exclusion restart nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.rim.pki import NETWORK, Pki

from holdfast.access.core import Core
from holdfast.access.proxies import ENVOY
from holdfast.access.role import AccessConfig
from holdfast.access.xray_config import HOP_CREDENTIAL
from holdfast.crypto.certificates import crl_pem, make_crl
from holdfast.crypto.certinfo import cert_info, from_pem, to_pem
from holdfast.logic.access.model import ExitPolicy
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port
from holdfast.rim.probing import probe, tunnel
from holdfast.rim.tls import Credentials
from holdfast.wire.access import CoreOrders
from holdfast.wire.hq import Desired

pytestmark = pytest.mark.system
ENTRY, OTHER, CORE = b"E" * 32, b"O" * 32, b"C" * 32
REQUEST = b"\0" + bytes.fromhex(HOP_CREDENTIAL.replace("-", "")) + b"\0\1\0\x50\1\xc0\0\2\1"


def orders(version: int, *entries: bytes, crls: tuple[bytes, ...] = ()) -> Desired:
    core = CoreOrders(
        cell="c1",
        core_domain="core.example.net",
        lane="la",
        policy=ExitPolicy(),
        entries=entries,
        incarnation=b"",
        reserve_counted=0,
        reserve_until=10**9,
        own_until=-1,
        crls=crls,
    )
    return Desired(version, 1, "core-eu-001", Role.CORE, (), None, core=core)


def put(directory: Path, credentials: Credentials) -> tuple[Path, Path]:
    directory.mkdir(parents=True, exist_ok=True)
    chain, key = credentials.pem()
    (directory / "chain.pem").write_bytes(chain)
    (directory / "key.pem").write_bytes(key)
    return directory / "chain.pem", directory / "key.pem"


def install(home: Path, pki: Pki) -> None:
    """A new certificate as an agent puts it in place."""
    credentials = pki.leaf("core", CORE, dns="c1.kelp.test", cell="c1")
    pair = home / "tls" / str(len(list((home / "tls").glob("*"))))
    put(pair, credentials)
    link = home / "tls" / ".new"
    link.symlink_to(pair.name)
    link.replace(home / "tls" / "current")


async def soon(holds: Callable[[], bool]) -> bool:
    """Whether it holds at one of a hundred looks."""
    for _ in range(100):
        if await asyncio.to_thread(holds):
            return True
    return False


def test_renewal_trust_and_exclusion_restart_nothing(tmp_path: Path) -> None:
    """Item 1: file-based configuration; a strange, wrong-cell or revoked entry opens no tunnel."""
    clock, entropy = SystemClock(), SystemEntropy()
    pki = Pki(now=clock.wall())
    (tmp_path / "tls").mkdir()
    install(tmp_path, pki)
    (tmp_path / "roots.pem").write_bytes(to_pem(pki.roots))
    port = free_port("127.0.0.1", entropy)
    current = tmp_path / "tls" / "current"
    config = AccessConfig(
        state=tmp_path / "role",
        host="127.0.0.1",
        port=port,
        role=Role.CORE,
        name="core-eu-001",
        region="eu",
        network=NETWORK,
        chain=current / "chain.pem",
        key=current / "key.pem",
        roots=tmp_path / "roots.pem",
    )
    (tmp_path / "role").mkdir()
    at = ("127.0.0.1", port)
    ours = put(tmp_path / "e", pki.leaf("entry", ENTRY, dns="c1.kelp.test", cell="c1"))
    other = put(tmp_path / "o", pki.leaf("entry", OTHER, dns="c1.kelp.test", cell="c1"))
    alien = put(tmp_path / "a", pki.leaf("entry", ENTRY, dns="c2.kelp.test", cell="c2"))
    wrong = put(tmp_path / "w", pki.leaf("core", ENTRY, dns="c1.kelp.test", cell="c1"))

    def opens(pair: tuple[Path, Path]) -> bool:
        return bool(tunnel(at, "core.example.net", pair, REQUEST, wait_s=1.5))

    async def scenario(core: Core) -> None:
        await core.apply(orders(1, ENTRY))
        envoy = core.proxies.pid(ENVOY)
        assert await asyncio.to_thread(opens, ours)
        for pair in (other, alien, wrong):
            assert not await asyncio.to_thread(opens, pair)
        # renewal: new handshakes see the new certificate, an open connection stays
        before = (await asyncio.to_thread(probe, at, "x")).certificate
        held = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        held.check_hostname, held.verify_mode = False, ssl.CERT_NONE
        conn = held.wrap_socket(socket.create_connection(at, 5), server_hostname="x")
        install(tmp_path, pki)
        core.rotate()
        assert await soon(lambda: probe(at, "x").certificate != before)
        conn.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert conn.recv(100).startswith(b"HTTP/1.1 200")
        # exclusion: the entry that was believed is out, its connections are cut, another is in
        await core.apply(orders(2, OTHER))
        conn.settimeout(5)
        try:
            while conn.recv(65_536):
                pass
        except ConnectionError:
            pass
        assert await soon(lambda: opens(other))
        assert not await asyncio.to_thread(opens, ours)
        # one certificate of an honest node is excluded by its serial, another of it is not
        serial = int(cert_info(from_pem(other[0].read_bytes())[0]).serial)
        for version, serials in ((3, ()), (4, (serial,))):
            crl = crl_pem(make_crl(pki.intermediate, serials, clock.wall()))
            await core.apply(orders(version, OTHER, crls=(crl,)))
            assert await soon(lambda serials=serials: opens(other) is not bool(serials))
        renewed = put(tmp_path / "r", pki.leaf("entry", OTHER, dns="c1.kelp.test", cell="c1"))
        assert await asyncio.to_thread(opens, renewed)
        assert not await asyncio.to_thread(opens, other)
        assert core.proxies.pid(ENVOY) == envoy, "nothing was restarted"

    async def main() -> None:
        core = Core(config, clock, entropy)
        try:
            await scenario(core)
        finally:
            await core.stop()

    asyncio.run(main())
