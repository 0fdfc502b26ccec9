"""The directory of a node: its keys, its certificate, what HQ told it.

| file                     | what                                                          |
|--------------------------|---------------------------------------------------------------|
| identity.key             | Ed25519 seed of the node's identity, made here, never leaves  |
| tls/pending.pem          | P-256 key that a join or a renewal is being asked for         |
| tls/<serial>/key.pem     | P-256 key of one certificate ...                              |
| tls/<serial>/chain.pem   | ... and its chain, leaf first                                 |
| tls/current              | link to the pair in use: both change at once or not at all    |
| roots.pem                | the roots of the network                                      |
| member.json              | what the node is, from HQ's reply; there once it has joined   |
| desired.msgpack          | `node.machine.Memory`: what HQ last wanted                    |
| alerts.msgpack           | `node.machine.Memory`: what HQ was not told yet               |
| witness.msgpack          | `Seen`: the checkpoint of HQ's log that was cosigned last      |
| evidence/                | pairs of notes by a log that had two faces                    |
| status.json              | for people and for `holdfast node status`; not relied on      |
| front/                   | of an entry or a core: the newest sealed copies of the store   |
| role/                    | the role's own data                                           |
| releases/, defer.json    | `node.releases`                                               |

Order law of joining: identity and pending key, then the request; on the reply the pair, the link,
`member.json`, and only then the token and the pending key go. A crash anywhere leaves a node that
asks again with the same keys and is answered alike (D8).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.crypto.certinfo import CertInfo, cert_info, from_pem, to_pem
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.fleet.model import NetworkId, NodeId, Role
from holdfast.logic.trust.witness import Seen
from holdfast.node.machine import Memory
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import (
    make_private_directory,
    read_file,
    remove_file,
    sync_directory,
    write_file,
)
from holdfast.wire.codec import pack, pack_json
from holdfast.wire.hq import Alert, Desired

GENERATIONS_KEPT: Final = 2
"""Certificate pairs kept: the one in use and the one before it."""


class Member(msgspec.Struct, frozen=True):
    """What this node is, as HQ said when it joined."""

    network: NetworkId
    node: NodeId
    name: str
    role: Role
    region: str
    provider: str
    owner: str
    hq: tuple[str, ...]
    """`host:port` of the headquarters."""
    listen: str
    """`host:port` where the role listens; what clients are told may differ."""
    heartbeat_s: float
    cell: str = ""
    """Of an entry or a core."""
    addresses: tuple[str, ...] = ()
    """`host:port` that clients are told; empty in directories of older versions: where the role
    listens."""
    advertise: str = ""
    """What the owner said clients are told; empty when it follows from the rest."""


def parse_member(data: bytes) -> Member:
    """What member.json says. Raises OperationFault when it is damaged."""
    try:
        return msgspec.json.decode(data, type=Member)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise OperationFault(f"member.json is damaged: {error}", retryable=False) from error


class Report(msgspec.Struct, frozen=True):
    """`status.json`. Times are Unix seconds, 0 for never."""

    pid: int
    name: str
    node: str
    role: str
    phase: str
    addresses: tuple[str, ...]
    desired: int
    term: int
    draining: bool
    alerts_waiting: int
    certificate: str
    """Phase of its life: fresh, due, overdue, urgent, expired."""
    cert_expires_at: int
    hq_heard_at: float
    written_at: float
    log_size: int = 0
    """Leaves of HQ's log that this node has cosigned."""
    log_trouble: str = ""
    """What was wrong with HQ's log; evidence lies in `evidence/`."""
    release: str = ""
    """What the role runs, hex; empty: what is installed."""
    release_note: str = ""
    """What the owner should know of releases (`node.upgrading`)."""


class Home:
    """One node's directory. All writes are whole and durable; secrets are readable by the owner."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        make_private_directory(self.directory)
        make_private_directory(self.directory / "tls")
        self._saved = Memory()

    # --- keys and certificates -------------------------------------------------------------------
    @property
    def identity_file(self) -> Path:
        return self.directory / "identity.key"

    @property
    def chain_file(self) -> Path:
        return self.directory / "tls" / "current" / "chain.pem"

    @property
    def key_file(self) -> Path:
        return self.directory / "tls" / "current" / "key.pem"

    @property
    def roots_file(self) -> Path:
        return self.directory / "roots.pem"

    @property
    def role_directory(self) -> Path:
        return self.directory / "role"

    def identity(self, entropy: Entropy) -> SigningKey:
        """The node's identity, made on first use."""
        seed = read_file(self.identity_file)
        if seed is None:
            seed = entropy.bytes(32)
            write_file(self.identity_file, seed)
        if len(seed) != 32:
            raise OperationFault(f"{self.identity_file} is damaged", retryable=False)
        return SigningKey(seed)

    def own_identity(self) -> SigningKey:
        """The node's identity. Raises OperationFault when there is none: it has not joined."""
        seed = read_file(self.identity_file)
        if seed is None or len(seed) != 32:
            raise OperationFault(f"{self.identity_file} is missing or damaged", retryable=False)
        return SigningKey(seed)

    def pending_key(self, entropy: Entropy) -> TlsKey:
        """The TLS key to ask a certificate for: the one asked for before, or a new one."""
        path = self.directory / "tls" / "pending.pem"
        pem = read_file(path)
        if pem is not None:
            return TlsKey.from_pem(pem)
        key = TlsKey.from_bytes(entropy.bytes(32))
        write_file(path, key.pem())
        return key

    def renewal_key(self, entropy: Entropy) -> TlsKey:
        """As `pending_key`, but never the key in use: a crash may have left it pending."""
        key = self.pending_key(entropy)
        if key.spki() == self.certificate().spki:
            self.forget_pending()
            key = self.pending_key(entropy)
        return key

    def install(self, chain: tuple[bytes, ...], key: TlsKey) -> CertInfo:
        """Put a certificate and its key in place of the current pair, at once.

        Raises PeerFault when the certificate is not for this key.
        """
        info = cert_info(chain[0])
        if info.spki != key.spki():
            raise PeerFault("HQ certified a key that is not ours", code="certificate")
        tls = self.directory / "tls"
        pair = tls / info.serial
        make_private_directory(pair)
        write_file(pair / "key.pem", key.pem())
        write_file(pair / "chain.pem", to_pem(chain))
        link = tls / ".current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(info.serial)
        link.replace(tls / "current")
        sync_directory(tls)
        return info

    def forget_pending(self) -> None:
        """The pending key is in use now (or was refused): drop it, and pairs long replaced."""
        remove_file(self.directory / "tls" / "pending.pem")
        tls = self.directory / "tls"
        current = os.readlink(tls / "current") if (tls / "current").is_symlink() else ""
        pairs = [path for path in tls.iterdir() if path.is_dir() and not path.is_symlink()]
        pairs.sort(key=lambda path: (path.name == current, path.stat().st_mtime_ns))
        for old in pairs[:-GENERATIONS_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def chain(self) -> tuple[bytes, ...]:
        """The chain in use, DER, leaf first. Raises UsageError when the node has not joined."""
        pem = read_file(self.chain_file)
        if pem is None:
            raise UsageError(f"{self.directory} has no certificate; join first")
        return from_pem(pem)

    def certificate(self) -> CertInfo:
        """The leaf in use."""
        return cert_info(self.chain()[0])

    # --- membership ------------------------------------------------------------------------------
    def roots(self) -> tuple[bytes, ...]:
        """The network's roots, DER."""
        pem = read_file(self.roots_file)
        if pem is None:
            raise UsageError(f"{self.directory} pins no root; join first")
        return from_pem(pem)

    def pin_roots(self, roots: tuple[bytes, ...]) -> None:
        """Accept these roots from now on."""
        assert roots, "a network has a root"
        if read_file(self.roots_file) != to_pem(roots):
            write_file(self.roots_file, to_pem(roots))

    def member(self) -> Member | None:
        """What this node is; None before it has joined."""
        data = read_file(self.directory / "member.json")
        if data is None:
            return None
        return parse_member(data)

    def save_member(self, member: Member) -> None:
        write_file(self.directory / "member.json", msgspec.json.format(pack_json(member), indent=1))

    # --- witnessing ------------------------------------------------------------------------------
    def witnessed(self) -> Seen:
        """The checkpoint cosigned last. Raises OperationFault when the file is damaged: a witness
        that forgot would cosign a fork."""
        data = read_file(self.directory / "witness.msgpack")
        if data is None:
            return Seen()
        try:
            return msgspec.msgpack.decode(data, type=Seen)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise OperationFault(f"witness.msgpack is damaged: {error}", retryable=False) from error

    def save_witnessed(self, seen: Seen) -> None:
        """On the disk when this returns."""
        write_file(self.directory / "witness.msgpack", pack(seen))

    def save_evidence(self, name: str, data: bytes) -> None:
        """Keep a proof of misconduct for people to look at."""
        make_private_directory(self.directory / "evidence")
        write_file(self.directory / "evidence" / name, data)

    # --- memory and status -----------------------------------------------------------------------
    def memory(self) -> Memory:
        """What the agent remembers; what cannot be read (another version's) is set aside."""
        desired: Desired | None = self._recall("desired.msgpack", Desired)
        alerts: tuple[Alert, ...] | None = self._recall("alerts.msgpack", tuple[Alert, ...])
        self._saved = Memory(desired, alerts or ())
        return self._saved

    def _recall(self, name: str, kind: Any) -> Any:
        data = read_file(self.directory / name)
        if data is None:
            return None
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.DecodeError, ValueError):
            (self.directory / name).rename(self.directory / f"{name}.unreadable")
            return None

    def save_memory(self, memory: Memory) -> None:
        """Make `memory` durable: only the part that changed is written, alerts are many."""
        if memory.desired != self._saved.desired:
            write_file(self.directory / "desired.msgpack", pack(memory.desired))
        if memory.alerts != self._saved.alerts:
            write_file(self.directory / "alerts.msgpack", pack(memory.alerts))
        self._saved = memory

    def report(self) -> Report | None:
        """The last status that an agent wrote here."""
        data = read_file(self.directory / "status.json")
        try:
            return msgspec.json.decode(data, type=Report) if data else None
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None

    def write_report(self, report: Report) -> None:
        """Not synced: it only serves people."""
        beside = self.directory / ".status.json"
        try:
            beside.write_bytes(msgspec.json.format(pack_json(report), indent=1))
            beside.replace(self.directory / "status.json")
        except OSError as error:
            raise OperationFault(f"cannot write status.json: {error.strerror}") from error
