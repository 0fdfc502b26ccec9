"""The directory of a headquarters.

| file                    | what                                                                 |
|-------------------------|----------------------------------------------------------------------|
| hq.json                 | `HqConfig`                                                           |
| identity.key            | Ed25519 seed of HQ's identity, made here, never leaves               |
| roots.pem               | the roots of the network                                             |
| request.txt             | the line for the offline root (`wire.ceremony`)                      |
| intermediate/next.key   | P-256 key that the root is being asked to certify                    |
| intermediate/<serial>.* | keys and certificates the root has signed; the newest is used        |
| front.keys              | keys that calls through nodes are sealed to (`hq.front_keys`)        |
| control.db              | the control store                                                    |
| seal.key, credentials/  | providers' keys, sealed, and what opens them (`hq.vault`)            |
| admin.json              | while serving: where the admin port is, and its key                  |

The network root's key is never here: `init` writes a request, the root signs it elsewhere, and
`install` takes the certificate. A new intermediate for the next 18 months is asked for the same way
while the present one is in use (D6).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.certificates import (
    Authority,
    TlsKey,
    cert_info,
    fingerprint,
    from_pem,
    make_csr,
    to_pem,
    verify_hq_proof,
)
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.rootset import only_roots
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.config import HqConfig, load_config, save_config
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, remove_file, write_file
from holdfast.wire.ceremony import make_request
from holdfast.wire.locator import Locator

ADMIN_FILE: Final = "admin.json"
ROOTS_FILE: Final = "roots.pem"


class AdminFile(msgspec.Struct, frozen=True):
    """`admin.json`."""

    address: str
    key: str
    pid: int


class HqKeys(msgspec.Struct, frozen=True):
    """Everything HQ signs with, and the roots that vouch for it."""

    identity: SigningKey
    intermediate: Authority
    roots: tuple[bytes, ...]


def at(directory: Path) -> HqHome:
    """The headquarters in `directory`, or in the network that `holdfast up` keeps there."""
    inside = directory / "hq"
    is_network = not (directory / "hq.json").exists() and (inside / "hq.json").exists()
    return HqHome(inside if is_network else directory)


class HqHome:
    """One headquarters' directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    def init(self, config: HqConfig, roots: Sequence[bytes], entropy: Entropy) -> str:
        """Make the keys and return the line for the root to sign.

        Raises UsageError when the roots are no roots of one network and of the config's domain, or
        when there is a headquarters here already.
        """
        check_roots(roots, config.domain)
        config.check()
        if (self.directory / "identity.key").exists():
            raise UsageError(f"{self.directory} holds a headquarters already")
        make_private_directory(self.directory)
        make_private_directory(self.directory / "intermediate")
        write_file(self.directory / ROOTS_FILE, to_pem(roots))
        save_config(self.directory, config)
        write_file(self.directory / "identity.key", entropy.bytes(32))
        return self.request(entropy)

    def request(self, entropy: Entropy) -> str:
        """The line that asks for an intermediate, for the key asked for before or a new one."""
        path = self.directory / "intermediate" / "next.key"
        pem = read_file(path)
        key = TlsKey.from_bytes(entropy.bytes(32)) if pem is None else TlsKey.from_pem(pem)
        if pem is None:
            write_file(path, key.pem())
        network = check_roots(self.roots())
        line = str(make_request(network, self.identity(), make_csr(key)))
        write_file(self.directory / "request.txt", line.encode() + b"\n", mode=0o644)
        return line

    def install(self, certificate: bytes, now: float) -> None:
        """Take the certificate that the root signed for the key asked for last.

        Raises UsageError when it is for another key or headquarters, or not by a root we know.
        """
        pem = read_file(self.directory / "intermediate" / "next.key")
        if pem is None:
            raise UsageError("nothing was asked for; run: holdfast hq request")
        try:
            info = cert_info(certificate)
            verify_hq_proof(self.roots(), certificate, self.identity().public, now)
        except PeerFault as fault:
            raise UsageError(f"this certificate is not for us: {fault}") from fault
        if info.spki != TlsKey.from_pem(pem).spki():
            raise UsageError("this certificate is for another key than the one asked for last")
        base = self.directory / "intermediate" / info.serial
        write_file(base.with_suffix(".key"), pem)
        write_file(base.with_suffix(".pem"), to_pem([certificate]), mode=0o644)
        remove_file(self.directory / "intermediate" / "next.key")

    def config(self) -> HqConfig:
        """`hq.json`. Raises UsageError."""
        return load_config(self.directory)

    def roots(self) -> tuple[bytes, ...]:
        """The network's roots. Raises UsageError when there are none."""
        data = read_file(self.directory / ROOTS_FILE)
        if data is None:
            where = self.directory
            raise UsageError(f"no headquarters in {where}; run: holdfast hq init --dir {where}")
        try:
            return from_pem(data)
        except PeerFault as fault:
            raise UsageError(f"{self.directory / 'roots.pem'}: {fault}") from fault

    def add_root(self, root: bytes) -> None:
        """Trust another root besides: the first step of a rollover. Raises UsageError."""
        roots = (*(known for known in self.roots() if known != root), root)
        check_roots(roots)
        write_file(self.directory / ROOTS_FILE, to_pem(roots))

    def locator(self) -> Locator:
        """The network locator: what a new device needs to find a slot. Not secret. Raises
        UsageError."""
        roots, config = self.roots(), self.config()
        return Locator(
            network=check_roots(roots),
            domain=config.domain,
            pins=tuple(fingerprint(root) for root in only_roots(roots)),
            roots=only_roots(roots),
            slot=b"",
            relays=(),
            replicas=(),
            resolvers=config.dns_addresses or (config.dns_listen,),
            hq=config.addresses or (config.listen,),
        )

    def identity(self) -> SigningKey:
        """HQ's identity key. Raises OperationFault when it is lost or damaged."""
        seed = read_file(self.directory / "identity.key")
        if seed is None or len(seed) != 32:
            raise OperationFault(f"{self.directory}/identity.key is damaged", retryable=False)
        return SigningKey(seed)

    def keys(self, now: float) -> HqKeys:
        """All of it, with the newest intermediate that is valid now.

        Raises UsageError when no intermediate is: the text says how to get one.
        """
        identity, roots = self.identity(), self.roots()
        found: list[tuple[int, int, Authority]] = []
        for path in sorted((self.directory / "intermediate").glob("*.pem")):
            certificate = from_pem(path.read_bytes())[0]
            try:
                verify_hq_proof(roots, certificate, identity.public, now)
            except PeerFault:
                continue
            key = TlsKey.from_pem(path.with_suffix(".key").read_bytes())
            installed_at = path.stat().st_mtime_ns
            ends_at = cert_info(certificate).not_after
            found.append((ends_at, installed_at, Authority(certificate, key)))
        if not found:
            raise UsageError(
                "no valid intermediate certificate; sign request.txt with holdfast root "
                "issue-intermediate, then run holdfast hq install"
            )
        return HqKeys(identity, max(found, key=lambda item: item[:2])[2], roots)

    def save_admin(self, admin: AdminFile) -> None:
        """Say where the admin port is; readable by the owner only."""
        write_file(self.directory / ADMIN_FILE, msgspec.json.encode(admin))

    def forget_admin(self) -> None:
        """The admin port is closed."""
        remove_file(self.directory / ADMIN_FILE)

    def admin(self) -> AdminFile:
        """Where the admin port is. Raises UsageError when no headquarters serves here."""
        data = read_file(self.directory / ADMIN_FILE)
        if data is None:
            raise UsageError(
                f"no headquarters serves from {self.directory}; run: holdfast hq serve "
                f"--dir {self.directory}"
            )
        return msgspec.json.decode(data, type=AdminFile)


def check_roots(roots: Sequence[bytes], domain: str | None = None) -> bytes:
    """The network id that all of them name. Raises UsageError."""
    networks = set()
    try:
        for root in roots:
            info = cert_info(root)
            if info.name is None or info.name.role != "root":
                raise UsageError("that certificate is no network root")
            if domain is not None and info.domain != domain:
                raise UsageError(f"that root is for {info.domain}, not for {domain}")
            networks.add(info.name.network)
    except PeerFault as fault:
        raise UsageError(f"not a root certificate: {fault}") from fault
    if len(networks) != 1:
        raise UsageError("the roots must be of one network")
    return networks.pop()
