"""Exclusion: the signed, versioned, grow-only revocation list (D3, D6).

A list is a set of entries that only grows. Its version (restore epoch, n) rides in every
node-to-node reply, so a node that sees a newer one asks for it; a stale list raises an alarm and
stops nothing. Lists from several sources are united, never replaced: a restored or lying HQ can
exclude too much, but it cannot let anyone back in.

An entry matches by node id, by serial and by key, and each alone suffices; what matches is taken
from the *inside* of a certificate. The hash of the file is never used: ECDSA signatures are
malleable, and Nebula let revoked nodes back in through exactly that door (CVE-2026-25793). Every
certificate of a chain is asked about, so that one entry for an intermediate, by its serial or its
key, takes out all leaves under it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from holdfast.logic.fleet.model import NetworkId, NodeId, Version


class Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the revocation list: by node, by serial and by key, whichever matches (D6).

    `node` set means every certificate of that node, whatever its serial or key. To take out one
    certificate only (a stolen TLS key of an honest node, an intermediate), leave `node` empty.
    """

    node: NodeId
    """32 bytes; empty when one certificate or one key is meant and not the node."""
    serial: str
    """Serial number, decimal digits; empty when no single certificate is meant."""
    key_hash: bytes
    """SHA-256 of the certificate's SPKI; empty when no key is meant."""
    reason: str
    at: int
    """Unix seconds."""


class Revocations(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signed, versioned, grow-only (D6). `entries` are sorted by (at, node, serial, key_hash)."""

    network: NetworkId
    version: Version
    issued_at: int
    entries: tuple[Revoked, ...]


class Presented(msgspec.Struct, frozen=True):
    """A certificate as far as exclusion is concerned. `node` is empty for none of ours."""

    node: NodeId
    serial: str
    key_hash: bytes


NO_REVOCATIONS_VERSION = Version(0, 0)


class RevocationList:
    """The fold of every list seen, and the question asked at each handshake, in O(1)."""

    __slots__ = ("_entries", "_keys", "_nodes", "_serials", "issued_at", "network", "version")

    def __init__(self, network: NetworkId) -> None:
        self.network = network
        self.version = NO_REVOCATIONS_VERSION
        self.issued_at = 0
        self._entries: set[Revoked] = set()
        self._nodes: dict[NodeId, Revoked] = {}
        self._serials: dict[str, Revoked] = {}
        self._keys: dict[bytes, Revoked] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def fold(self, news: Revocations) -> tuple[Revoked, ...]:
        """Unite with a list whose signature the caller verified; the entries that are new here.

        An older or equal version adds its entries too (grow-only, D3), without moving `version`
        back. The caller cuts live connections that match what is returned.
        """
        assert news.network == self.network, "the caller checks the network with the signature"
        fresh = tuple(entry for entry in news.entries if entry not in self._entries)
        for entry in fresh:
            self._add(entry)
        if news.version > self.version:
            self.version = news.version
            self.issued_at = news.issued_at
        return fresh

    def find(self, certificate: Presented) -> Revoked | None:
        """The entry that excludes this certificate, if any."""
        return (
            (self._nodes.get(certificate.node) if certificate.node else None)
            or self._serials.get(certificate.serial)
            or self._keys.get(certificate.key_hash)
        )

    def find_in(self, chain: Iterable[Presented]) -> Revoked | None:
        """The first entry that excludes any certificate of a chain."""
        return next((entry for item in chain if (entry := self.find(item))), None)

    def missing_from(self, other: Revocations) -> tuple[Revoked, ...]:
        """Entries known here that `other` lacks: what a restored HQ must take back (D3)."""
        theirs = set(other.entries)
        return tuple(entry for entry in self.snapshot_entries() if entry not in theirs)

    def snapshot_entries(self) -> tuple[Revoked, ...]:
        """All entries in their one order."""
        return tuple(sorted(self._entries, key=_order))

    def issue(self, entries: Iterable[Revoked], *, epoch: int, now: float) -> Revocations:
        """The next list to sign, at the version after the newest known, in `epoch` (D3)."""
        version = Version(epoch, 1)
        if version <= self.version:
            assert epoch <= self.version.epoch
            version = Version(self.version.epoch, self.version.n + 1)
        union = tuple(sorted(self._entries.union(entries), key=_order))
        return Revocations(self.network, version, int(now), union)

    def _add(self, entry: Revoked) -> None:
        self._entries.add(entry)
        if entry.node:
            self._nodes.setdefault(entry.node, entry)
        if entry.serial:
            self._serials.setdefault(entry.serial, entry)
        if entry.key_hash:
            self._keys.setdefault(entry.key_hash, entry)


def matches(entries: Iterable[Revoked], certificate: Presented) -> Revoked | None:
    """The first of a few entries that excludes this certificate: for cutting connections."""
    for entry in entries:
        if (
            (entry.node and entry.node == certificate.node)
            or (entry.serial and entry.serial == certificate.serial)
            or (entry.key_hash and entry.key_hash == certificate.key_hash)
        ):
            return entry
    return None


def is_stale(issued_at: int, now: float, stale_s: float) -> bool:
    """Whether a list is so old that somebody should look; never a reason to refuse service."""
    return now - issued_at > stale_s


def _order(entry: Revoked) -> tuple[int, bytes, str, bytes, str]:
    return entry.at, entry.node, entry.serial, entry.key_hash, entry.reason
