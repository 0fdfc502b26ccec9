"""A transparency log in a test's hand: leaves, checkpoints, witnesses that are asked or are not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet.model import SlotRecord, Version
from holdfast.logic.trust.checkpoint import Checkpoint, log_origin, witness_name
from holdfast.logic.trust.merkle import Tree
from holdfast.logic.trust.note import Note, cosignature_input, cosignature_line, signature_line
from holdfast.logic.trust.witnesses import WitnessKey, WitnessSet
from holdfast.wire.envelope import sign
from holdfast.wire.logged import leaf_of
from holdfast.wire.records import Logged, Override, Staple
from holdfast.wire.signed import Type

AT = 1_795_000_000


class PublicLog:
    """The log of an HQ with `key` and `proof`, and the witnesses of some owners."""

    def __init__(self, key: SigningKey, proof: bytes, domain: str, network: bytes) -> None:
        self._key = key
        self._proof = proof
        self._domain = domain
        self._network = network
        self._tree = Tree([b"first"])
        self._index: dict[bytes, int] = {}
        self.keys: dict[str, SigningKey] = {}
        self._sets = 0
        self._set: Staple | None = None

    def own(self, *owners: str) -> None:
        """These owners have a witness each, and clients are told of them."""
        for owner in owners:
            self.keys.setdefault(owner, SigningKey(hash_bytes(owner.encode())))
        self._sets += 1
        keys = [WitnessKey(self.keys[owner].public, owner) for owner in sorted(owners)]
        version = Version(0, self._sets)
        self._set = self.sign(Type.WITNESSES, WitnessSet(self._network, version, AT, tuple(keys)))

    def sign(self, kind: Type, statement: object) -> Staple:
        """A statement of HQ, not logged."""
        return Staple(sign(self._key, kind, statement), self._proof)

    @property
    def witnesses(self) -> Staple | None:
        """The newest set, cosigned by everybody."""
        return self.logged(self._set, tuple(self.keys)) if self._set is not None else None

    def logged(self, staple: Staple, cosigners: Sequence[str]) -> Staple:
        """The same with its place in the log, in a checkpoint that `cosigners` have signed."""
        leaf = leaf_of(staple.signed).data()
        if leaf not in self._index:
            self._index[leaf] = self._tree.append(leaf)
        index, size = self._index[leaf], len(self._tree)
        origin = log_origin(self._domain, self._network)
        text = Checkpoint(origin, size, self._tree.root()).text()
        lines = [signature_line(origin, self._key.public, self._key.sign(text.encode()))]
        for owner in cosigners:
            key = self.keys[owner]
            signature = key.sign(cosignature_input(text, AT))
            name = witness_name(self._domain, key.node)
            lines.append(cosignature_line(name, key.public, AT, signature))
        note = Note(text, tuple(lines)).render()
        logged = Logged(index, self._tree.path(index), note, self._key.public, self._proof)
        return msgspec.structs.replace(staple, logged=logged)

    def overridden(self, staple: Staple, record: SlotRecord, owners: Sequence[str]) -> Staple:
        """The same with these owners' word that it be followed."""
        body = hash_bytes(staple.signed.body)
        statement = Override(record.network, record.slot, record.version, body)
        signed = tuple(sign(self.keys[owner], Type.OVERRIDE, statement) for owner in owners)
        return msgspec.structs.replace(staple, overrides=signed)
