"""Archived history: opened by any two of the devices that were chosen for it (D22, seed 003).

"Historical data is encrypted with keys from two of your devices, and stored on you or your most
trusted friends' devices." The key of an archive is split so that any two shares give it back; each
chosen device keeps one share and all of the ciphertext, none keeps two. The line of the index, with
the title, is sealed to the person; holders see a name, which is a hash, and sizes.

The dialogue: ask the devices that answer for the names of archives; open the index lines, which lie
with this device's own shares; look the title up; ask one more device for its share; fetch the
transcript by its hashes and open it. The key is put together in memory and forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.crypto.blob import blob_id, seal, unseal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.crypto.shamir import join, split
from holdfast.crypto.wrap import wrap
from holdfast.device.agent import Agent
from holdfast.device.eras import person_wrap
from holdfast.device.peering.letters import Peer
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.vault.halves import Done, Half
from holdfast.errors import HoldfastError, OperationFault, UsageError
from holdfast.limits import BLOB_BYTES_MAX
from holdfast.wire.codec import pack, unpack
from holdfast.wire.pool import BlobClass

PIECE_BYTES: Final = BLOB_BYTES_MAX - 67
NEEDED: Final = 2
_LINE_BYTES_MAX: Final = 4_096
_DAY_S: Final = 86_400


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the index. `check` is the hash of the archive's key."""

    title: str
    at: int
    size: int
    access_seed: bytes
    check: bytes
    blobs: tuple[bytes, ...]


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one device keeps of an archive: its share, and the sealed line of the index."""

    x: int
    share: bytes
    line: bytes


class Archived(msgspec.Struct, frozen=True):
    """An archive as its person sees it."""

    name: bytes
    title: str
    at: int
    size: int


def index_info(name: bytes) -> bytes:
    """HPKE `info` of a line of the index."""
    return b"holdfast v1 archive line" + name


def _keys(secret: bytes, network: bytes) -> tuple[Era, SigningKey]:
    """The era that seals an archive, and the key that opens sessions for its tag: carriers have
    the latter, so it does not follow from what they could put together."""
    era = Era(secret, network)
    return era, era.access


class Archives:
    """Archives of this device's person."""

    def __init__(self, runtime: DeviceRuntime, agent: Agent) -> None:
        self._runtime = runtime
        self._agent = agent
        self._network = runtime.keyring.era.network

    async def add(self, title: str, payload: bytes, devices: Sequence[Peer]) -> Archived:
        """Archive `payload` on this device and on `devices`, each with a share. Raises UsageError
        without another device, OperationFault when one does not answer."""
        if not devices or not payload or len(title.encode()) > 255:
            raise UsageError("an archive needs a title, content, and one more device at least")
        runtime, person = self._runtime, self._runtime.state.person
        secret = runtime.entropy.bytes(32)
        era, access = _keys(secret, self._network)
        bodies = self._seal(era, payload)
        name = derive_key("holdfast v1 archive name", era.tag)
        blobs = tuple(blob_id(body) for body in bodies)
        at = int(runtime.clock.wall())
        line = Line(title, at, len(payload), access.seed, hash_bytes(secret), blobs)
        public = person_wrap(runtime.keyring.era.secret).public
        if len(pack(line)) > _LINE_BYTES_MAX // 2:
            raise UsageError("this is more than one archive holds; split it")
        sealed = wrap(public, pack(line), index_info(name))
        shares = split(secret, NEEDED, len(devices) + 1)
        await asyncio.to_thread(self._agent.vault.put, era.tag, BlobClass.BULK, bodies)
        for x, peer in enumerate(devices, 2):
            holder = self._agent.holder(peer, access)
            await holder.carry()
            for body in bodies:
                await holder.put(BlobClass.BULK, (body,))
            half = Half(name, pack(Share(x, shares[x], sealed)))
            await self._agent.writer.ask(peer, "keep-share", half, Done)
        self._agent.halves.keep_own(person, name, pack(Share(1, shares[1], sealed)))
        return Archived(name, title, at, len(payload))

    def all(self) -> list[Archived]:
        """The index, by title, from the shares that lie here."""
        person, found = self._runtime.state.person, []
        for name in self._agent.halves.archives(person):
            line = self._line(name, self._own(name))
            found.append(Archived(name, line.title, line.at, line.size))
        return sorted(found, key=lambda archive: (archive.title, archive.name))

    async def open(self, name: bytes, devices: Sequence[Peer]) -> bytes:
        """The archive of that name, with one more device's share. Raises OperationFault when none
        of `devices` answers with one."""
        own = self._own(name)
        line = self._line(name, own)
        for peer in devices:
            try:
                answer = await self._agent.writer.ask(peer, "share", Half(name), Half)
                other = unpack(Share, answer.half, bytes_max=_LINE_BYTES_MAX)
            except HoldfastError:
                continue
            secret = join({own.x: own.share, other.x: other.share})
            if hash_bytes(secret) == line.check:
                return await self._read(secret, line, devices)
        raise OperationFault("an archive opens with two devices, and no second one answers")

    # --- parts ---------------------------------------------------------------------------------
    def _seal(self, era: Era, payload: bytes) -> list[bytes]:
        pieces = [payload[i : i + PIECE_BYTES] for i in range(0, len(payload), PIECE_BYTES)]
        born = int(self._runtime.clock.wall() // _DAY_S)
        return [
            seal(era, BlobClass.BULK, piece, born, index=index, total=len(pieces))
            for index, piece in enumerate(pieces)
        ]

    def _own(self, name: bytes) -> Share:
        data = self._agent.halves.own(self._runtime.state.person, name)
        if data is None:
            raise UsageError("no share of that archive lies here; see holdfast carry archives")
        return unpack(Share, data, bytes_max=_LINE_BYTES_MAX)

    def _line(self, name: bytes, share: Share) -> Line:
        for era in reversed(self._runtime.keyring.eras):
            try:
                plain = person_wrap(era.secret).unwrap(share.line, index_info(name))
            except HoldfastError:
                continue
            return unpack(Line, plain, bytes_max=_LINE_BYTES_MAX)
        raise OperationFault("the index of this archive does not open here", retryable=False)

    async def _read(self, secret: bytes, line: Line, devices: Sequence[Peer]) -> bytes:
        era, access = _keys(secret, self._network)
        pieces = []
        for index, blob in enumerate(line.blobs):
            body = await asyncio.to_thread(self._agent.vault.get, blob)
            for peer in devices:
                if body is None:
                    body = (await self._agent.holder(peer, access).get((blob,))).get(blob)
            if body is None:
                raise OperationFault("a part of the archive is on no device that answers")
            opened = unseal(era, BlobClass.BULK, body)
            if (opened.index, opened.total) != (index, len(line.blobs)):
                raise OperationFault("the parts of the archive do not fit", retryable=False)
            pieces.append(opened.payload)
        return b"".join(pieces)
