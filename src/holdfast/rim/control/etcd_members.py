"""The members of an etcd that this machine runs for itself: directories, certificates, commands.

| file             | what                                                             |
|------------------|------------------------------------------------------------------|
| members.json     | addresses and the name of the cluster: chosen once, kept for ever |
| ca.pem           | etcd's own authority                                             |
| member.pem, .key | what members show to each other and to clients                   |
| client.pem, .key | what headquarters shows                                          |
| <name>/          | a member's data                                                  |

The authority's key signs two certificates and is forgotten: a new member of an etcd that outgrows
one machine is the business of whoever runs it (docs of etcd, "TLS"), and headquarters needs only
the addresses and a client certificate in `hq.json`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.certificates import to_pem
from holdfast.crypto.plaincert import create_plain_authority, issue_plain_leaf
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import OperationFault, UsageError
from holdfast.rim.control.etcd_access import EtcdAccess
from holdfast.rim.control.etcd_wire import Range
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, write_file
from holdfast.rim.ports import free_port

PROGRAM: Final = "etcd"
MEMBERS_FILE: Final = "members.json"
CLIENT_FILES: Final = ("ca.pem", "client.pem", "client.key")
_HEARTBEAT_MS: Final = 50
_ELECTION_MS: Final = 500
"""etcd's own advice is ten times the round trip and five times that: loopback with busy disks."""


class Member(msgspec.Struct, frozen=True):
    """One member; addresses are `host:port`."""

    name: str
    client: str
    peer: str


class Members(msgspec.Struct, frozen=True):
    """`members.json`."""

    cluster: str
    members: tuple[Member, ...]

    def access(self, base: str) -> EtcdAccess:
        """How headquarters gets in; `base` is where `CLIENT_FILES` lie, seen from its directory."""
        ca, cert, key = (f"{base}/{name}" for name in CLIENT_FILES)
        return EtcdAccess(tuple(member.client for member in self.members), ca, cert, key)


def program() -> str:
    """Path of the etcd program. Raises UsageError when it is not installed."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise UsageError("etcd is not installed; on Debian: apt-get install etcd-server")
    return found


def prepare(
    directory: Path, host: str, count: int, entropy: Entropy, now: float, *, names: str = "etcd"
) -> Members:
    """The members that live in `directory`, chosen and certified at the first call.

    Raises UsageError when etcd is not installed, OperationFault when a file is damaged.
    """
    program()
    data = read_file(directory / MEMBERS_FILE)
    if data is not None:
        try:
            return msgspec.json.decode(data, type=Members)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            where = directory / MEMBERS_FILE
            raise OperationFault(f"{where} is damaged: {error}", retryable=False) from error
    make_private_directory(directory)
    ports: list[int] = []
    while len(ports) < 2 * count:
        port = free_port(host, entropy)
        if port not in ports:
            ports.append(port)
    chosen = Members(
        cluster=entropy.bytes(8).hex(),
        members=tuple(
            Member(f"{names}-{i + 1}", f"{host}:{ports[2 * i]}", f"{host}:{ports[2 * i + 1]}")
            for i in range(count)
        ),
    )
    _certify(directory, host, entropy, now)
    write_file(directory / MEMBERS_FILE, msgspec.json.encode(chosen))
    return chosen


def _certify(directory: Path, host: str, entropy: Entropy, now: float) -> None:
    authority = create_plain_authority(entropy.bytes(32), "Holdfast control store", now)
    write_file(directory / "ca.pem", to_pem([authority.certificate]))
    for name, hosts in (("member", (host,)), ("client", ())):
        key = TlsKey.from_bytes(entropy.bytes(32))
        leaf = issue_plain_leaf(authority, key, f"control store {name}", hosts, now)
        write_file(directory / f"{name}.pem", to_pem([leaf]))
        write_file(directory / f"{name}.key", key.pem())


def command(directory: Path, members: Members, member: Member) -> tuple[str, ...]:
    """The command line of one member: TLS with client certificates on both of its ports."""
    tls = ("--cert-file", "--key-file", "--trusted-ca-file")
    files = [str(directory / name) for name in ("member.pem", "member.key", "ca.pem")]
    peers = ",".join(f"{each.name}=https://{each.peer}" for each in members.members)
    return (
        program(),
        "--name",
        member.name,
        "--data-dir",
        str(directory / member.name),
        "--listen-client-urls",
        f"https://{member.client}",
        "--advertise-client-urls",
        f"https://{member.client}",
        "--listen-peer-urls",
        f"https://{member.peer}",
        "--initial-advertise-peer-urls",
        f"https://{member.peer}",
        "--initial-cluster",
        peers,
        "--initial-cluster-token",
        members.cluster,
        "--heartbeat-interval",
        str(_HEARTBEAT_MS),
        "--election-timeout",
        str(_ELECTION_MS),
        "--auto-compaction-mode",
        "periodic",
        "--auto-compaction-retention",
        "1h",
        "--logger",
        "zap",
        "--log-level",
        "warn",
        *(part for pair in zip(tls, files, strict=True) for part in pair),
        "--client-cert-auth",
        *(part for pair in zip(map(_peer, tls), files, strict=True) for part in pair),
        "--peer-client-cert-auth",
    )


def _peer(flag: str) -> str:
    return flag.replace("--", "--peer-", 1)


async def keys(directory: Path, endpoints: Sequence[str]) -> set[str]:
    """Every key there is, asked by etcd's own client: a second opinion beside ours.

    Raises OperationFault when it is not installed or cannot read.
    """
    files = zip(("--cacert", "--cert", "--key"), CLIENT_FILES, strict=True)
    command = (
        "etcdctl",
        f"--endpoints={','.join(endpoints)}",
        *(f"{flag}={directory / name}" for flag, name in files),
        *("get", "/", "--prefix", "--keys-only", "--write-out=json"),
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
    except OSError as error:
        raise OperationFault("etcdctl is not installed", retryable=False) from error
    data, _ = await process.communicate()
    if process.returncode:
        raise OperationFault("etcdctl could not read the store", retryable=False)
    found = msgspec.json.decode(data, type=Range, strict=False)
    return {kv.key.decode() for kv in found.kvs}
