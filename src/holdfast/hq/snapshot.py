"""Taking headquarters' snapshot: every row, every key, sealed to people (seed 004 §12.2, tier 2).

Rows are read as of one revision. The lead is left behind (it is bound to a lease), everything else
comes along: registry, certificates, log, audit chain, DNS; with them `hq.json`, the identity, the
intermediates and the providers' keys. What leaves this process is sealed to the continuity
recipients, whose key files are elsewhere: headquarters cannot read its own snapshots.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.sealedfile import open_for, seal_for
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.config import CONFIG_FILE, HqConfig
from holdfast.hq.leader import LEADER
from holdfast.hq.restored import RESTORED, restored_row
from holdfast.hq.vault import DIRECTORY as CREDENTIALS
from holdfast.hq.vault import SEAL_KEY
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.rim.control.store import ControlStore
from holdfast.rim.files import read_file
from holdfast.wire.codec import pack, unpack
from holdfast.wire.snapshot import SNAPSHOT_VERSION, Snapshot, SnapshotFile, SnapshotRow

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEY_FILE: Final = "snapshot.key"
"""Era secret of the snapshots' group."""
FILES: Final = (CONFIG_FILE, "identity.key", "roots.pem", KEY_FILE)
DIRECTORIES: Final = ("intermediate", "tickets", CREDENTIALS)
_PROVIDERS: Final = "providers"


async def take(
    store: ControlStore, directory: Path, config: HqConfig, network: bytes, now: float
) -> Snapshot:
    """The snapshot as of now. Raises OperationFault."""
    reply = await store.range("/")
    restored = next((kv for kv in reply.items if kv.key == RESTORED), None)
    return Snapshot(
        version=SNAPSHOT_VERSION,
        network=network,
        domain=config.domain,
        made_at=int(now),
        revision=reply.revision,
        epoch=restored_row(restored).epoch,
        rows=tuple(SnapshotRow(kv.key, kv.value) for kv in reply.items if kv.key != LEADER),
        files=tuple(_files(directory, config)),
    )


def _files(directory: Path, config: HqConfig) -> list[SnapshotFile]:
    """Provider keys are sealed; the key that opens them may lie anywhere, inside the snapshot it
    lies beside them. One that is in a plain file still lies under `providers/` there, and the
    configuration names it there."""
    providers = []
    found = []
    seal_key = read_file(directory / config.seal_key_file)
    if seal_key is not None:
        found.append(SnapshotFile(SEAL_KEY, seal_key))
    for provider in config.providers:
        inside = f"{_PROVIDERS}/{provider.name}.key"
        body = read_file(directory / provider.key_file)
        if body is not None:
            found.append(SnapshotFile(inside, body))
        providers.append(msgspec.structs.replace(provider, key_file=inside))
    moved = msgspec.structs.replace(
        config, providers=tuple(providers), etcd=None, seal_key_file=SEAL_KEY
    )
    found.append(SnapshotFile(CONFIG_FILE, msgspec.json.encode(moved)))
    paths = [directory / name for name in FILES if name != CONFIG_FILE]
    paths += [path for name in DIRECTORIES for path in sorted((directory / name).glob("*"))]
    for path in paths:
        body = read_file(path)
        if body is not None:
            found.append(SnapshotFile(str(path.relative_to(directory)), body))
    return found


def seal(snapshot: Snapshot, recipients: tuple[str, ...]) -> bytes:
    """The file. Raises UsageError when nobody could open it."""
    if not recipients:
        raise UsageError("name somebody who may open it: age1... in hq.json, continuity.recipients")
    return seal_for(zstd.compress(pack(snapshot)), recipients, bytes_max=SNAPSHOT_BYTES_MAX)


def unseal(sealed: bytes, identity: str) -> Snapshot:
    """What a file holds, opened with a recipient's key file. Raises UsageError."""
    return parse_body(open_for(sealed, identity, bytes_max=SNAPSHOT_BYTES_MAX))


def parse_body(data: bytes) -> Snapshot:
    """The snapshot in an opened file. Raises UsageError."""
    try:
        body = _inflate(data)
        snapshot = unpack(Snapshot, body, bytes_max=SNAPSHOT_BYTES_MAX)
    except (PeerFault, zstd.ZstdError, EOFError) as error:
        raise UsageError(f"the file opens and holds no snapshot: {error}") from error
    if snapshot.version != SNAPSHOT_VERSION:
        raise UsageError(f"a snapshot of version {snapshot.version}; use the program that made it")
    return snapshot


def _inflate(data: bytes) -> bytes:
    """Bounded: a small file may not become a large one. Raises PeerFault, zstd.ZstdError."""
    inflater = zstd.ZstdDecompressor()
    body = inflater.decompress(data, max_length=SNAPSHOT_BYTES_MAX)
    if not inflater.eof:
        raise PeerFault("more than a snapshot may hold, or cut short", code="too-large")
    return body
