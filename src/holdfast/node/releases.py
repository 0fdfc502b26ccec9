"""The releases on a node's disk, and its owner's word on when to take them.

| path below the node's directory | what                                                    |
|---------------------------------|---------------------------------------------------------|
| releases/kept.msgpack           | `node.trial.Kept`                                       |
| releases/<id hex>/staple.msgpack| the signed statement                                    |
| releases/<id hex>/tree/         | the package, unpacked                                   |
| releases/<id hex>/knobs.json    | the settings its role starts with                       |
| defer.json                      | until when the owner puts upgrades off                  |

A release is in place whole or not at all: it is unpacked beside and renamed. It is checked against
signature and hash when it comes; later the disk is believed as it is with the node's keys.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault
from holdfast.logic.trust.revocation import Presented, Revoked
from holdfast.node.home import Home, Member
from holdfast.node.trial import OWN, Kept
from holdfast.rim.archive import unpack_archive
from holdfast.rim.files import (
    make_private_directory,
    read_file,
    remove_file,
    remove_tree,
    sync_directory,
    write_file,
)
from holdfast.wire.codec import pack, pack_json, unpack
from holdfast.wire.records import Staple
from holdfast.wire.release import Release, ReleaseId, release_id, speaks, verify_release
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type, decode_body
from holdfast.wire.versions import WIRE

KNOBS: Final = "knobs.json"


class Defer(msgspec.Struct, frozen=True):
    """`defer.json`: Unix seconds."""

    until: float


class Releases:
    """The directory. Blocking; what it writes is durable."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.directory = home.directory / "releases"
        make_private_directory(self.directory)

    # --- What is kept ----------------------------------------------------------------------------
    def kept(self) -> Kept:
        """What was kept; a release whose tree is gone or damaged is not trusted any more."""
        data = read_file(self.directory / "kept.msgpack")
        try:
            kept = msgspec.msgpack.decode(data, type=Kept) if data else Kept()
        except (msgspec.DecodeError, ValueError):
            kept = Kept()
        return kept if self.has(kept.good) else Kept(OWN, kept.refused, kept.why)

    def save_kept(self, kept: Kept) -> None:
        write_file(self.directory / "kept.msgpack", pack(kept))

    def deferred_until(self) -> float:
        """Until when the owner puts upgrades off; 0: not at all."""
        data = read_file(self._home.directory / "defer.json")
        try:
            return msgspec.json.decode(data, type=Defer).until if data else 0.0
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise OperationFault(f"defer.json is damaged: {error}", retryable=False) from error

    def defer(self, until: float) -> None:
        """The owner's word: put upgrades off until then; 0 takes it back."""
        path = self._home.directory / "defer.json"
        if until > 0:
            write_file(path, pack_json(Defer(until)))
        else:
            remove_file(path)

    # --- Releases --------------------------------------------------------------------------------
    def place(self, release: ReleaseId) -> Path:
        """Where a release lies."""
        return self.directory / release.hex()

    def has(self, release: ReleaseId) -> bool:
        """Whether it is on the disk, whole."""
        return release == OWN or (self.place(release) / "staple.msgpack").exists()

    def about(self, release: ReleaseId) -> Release | None:
        """The statement of a release on the disk; None of what is installed."""
        if release == OWN:
            return None
        data = read_file(self.place(release) / "staple.msgpack")
        if data is None:
            raise OperationFault(f"release {release.hex()[:12]} is not on the disk")
        staple = unpack(Staple, data, bytes_max=2 * SIGNED_BYTES_MAX)
        return decode_body(Type.RELEASE, Release, staple.signed)

    def check(
        self,
        member: Member,
        staple: Staple,
        now: float,
        revoked: Callable[[Presented], Revoked | None],
    ) -> Release:
        """The release of `staple`, if this node may run it. Raises PeerFault."""
        release = verify_release(self._home.roots(), staple, member.network, now, revoked)
        if not speaks(release, WIRE):
            raise PeerFault(
                f"{release.name} speaks node wire {release.wire_min} and newer; this agent speaks"
                f" {WIRE}: install a newer one first",
                code="version",
            )
        return release

    def install(self, staple: Staple, release: Release, archive: bytes) -> None:
        """Put a checked release in place. Raises PeerFault when the archive is another one;
        OperationFault."""
        if len(archive) != release.size or hash_bytes(archive) != release.digest:
            raise PeerFault("the archive is not the one that was signed", code="digest")
        place = self.place(release_id(staple))
        beside = place.with_name(f".{place.name}.new")
        remove_tree(beside)
        make_private_directory(beside)
        unpack_archive(archive, beside / "tree")
        write_file(beside / KNOBS, pack_json(release.knobs))
        write_file(beside / "staple.msgpack", pack(staple))
        remove_tree(place)
        try:
            sync_directory(beside)
            beside.rename(place)
            sync_directory(self.directory)
        except OSError as error:
            raise OperationFault(f"cannot put {place} in place: {error.strerror}") from error

    def remove(self, release: ReleaseId) -> None:
        """Have it no more: it will be fetched again."""
        remove_tree(self.place(release))

    def prune(self, *needed: ReleaseId) -> None:
        """Remove releases that nobody needs any more. Raises OperationFault."""
        names = {release.hex() for release in needed if release} | {"kept.msgpack"}
        try:
            paths = list(self.directory.iterdir())
        except OSError as error:
            raise OperationFault(f"cannot list {self.directory}: {error.strerror}") from error
        for path in paths:
            if path.is_dir() and path.name not in names:
                remove_tree(path)
