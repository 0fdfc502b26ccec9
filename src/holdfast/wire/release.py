"""A release: what a node may run, signed by the network's release key (ADR 0041).

The artifact is a zip archive with the package `holdfast/` in it, such as a wheel is. A release
names it by its hash, says which versions it speaks and stores, and brings the settings its roles
start with. A release is known by the hash of its signed body: the same code with other settings is
another release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.releasekey import verify_release_proof
from holdfast.errors import PeerFault
from holdfast.limits.upgrade import ARTIFACT_BYTES_MAX, RELEASE_NAME_LETTERS_MAX
from holdfast.logic.fleet.model import NetworkId
from holdfast.logic.trust.revocation import Presented, Revoked
from holdfast.wire.codec import Message
from holdfast.wire.envelope import sign, verify
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import presented

ReleaseId = bytes
"""BLAKE3 of the signed body; empty for a node's own installation."""
WIRE_MIN: Final = 2
"""Releases are handed out since this node wire."""


class Knobs(Message):
    """Settings that roles of the pool read at their start; None is the program's own figure. Rates
    are per real second."""

    requests_per_s: float | None = None
    sessions_max: int | None = None
    session_idle_s: float | None = None

    def check(self) -> None:
        """Raises PeerFault for what no role can work with."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1_000_000_000:
                raise PeerFault(f"the setting {name} must be above zero")


class Release(Message):
    """Body of a `Type.RELEASE` signature. `wire_min` to `wire` are the node wire versions it speaks
    (`wire.versions`), `schema` what it keeps its index as; `digest` is BLAKE3 of the archive of
    `size` bytes. `created_at` is Unix seconds."""

    network: NetworkId
    name: str
    version: str
    wire_min: int
    wire: int
    schema: int
    digest: bytes
    size: int
    knobs: Knobs
    created_at: int

    def check(self) -> None:
        """Raises PeerFault for a statement that cannot be right."""
        if not 0 < len(self.name) <= RELEASE_NAME_LETTERS_MAX or not self.name.isprintable():
            raise PeerFault(f"a release's name is 1 to {RELEASE_NAME_LETTERS_MAX} letters")
        if len(self.digest) != 32 or not 0 < self.size <= ARTIFACT_BYTES_MAX:
            raise PeerFault("a release without a sound archive")
        if self.wire < WIRE_MIN or not 1 <= self.wire_min <= self.wire:
            raise PeerFault(f"releases are handed out since node wire {WIRE_MIN}")
        self.knobs.check()


def release_id(staple: Staple) -> ReleaseId:
    """How a release is known."""
    return hash_bytes(staple.signed.body)


def sign_release(key: SigningKey, proof: bytes, release: Release) -> Staple:
    """The statement with the root's word for its signer. Raises PeerFault."""
    release.check()
    return Staple(sign(key, Type.RELEASE, release), proof)


def verify_release(
    roots: Sequence[bytes],
    staple: Staple,
    network: NetworkId,
    now: float,
    revoked: Callable[[Presented], Revoked | None] = lambda certificate: None,
) -> Release:
    """The release in `staple`, if a release key of `network` signed it that `revoked` does not
    know. Raises PeerFault."""
    of = verify_release_proof(roots, staple.proof, staple.signed.signer, now)
    if entry := revoked(presented(staple.proof)):
        raise PeerFault(f"signed with a revoked release key: {entry.reason}", code="revoked")
    release = verify(Type.RELEASE, Release, staple.signed)
    if release.network != network or of != network:
        raise PeerFault("a release of another network", code="network")
    release.check()
    return release


def speaks(release: Release, wire: int) -> bool:
    """Whether its roles and an agent of node wire `wire` have a version in common."""
    return release.wire_min <= wire
