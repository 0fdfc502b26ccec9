"""Releases are signed by a key that the offline root vouches for, and by nobody else (ADR 0041)."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.cli.hq_release import make_bundle
from holdfast.cli.release_key import make_release_key
from holdfast.crypto.certificates import Authority, create_root, issue_intermediate, issue_leaf
from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.releasekey import RELEASE_ROLE, certify_release_key
from holdfast.crypto.tlskey import TlsKey
from holdfast.errors import PeerFault, UsageError
from holdfast.limits.upgrade import RELEASE_KEY_DAYS, UNPACKED_BYTES_MAX
from holdfast.logic.trust.revocation import Presented, Revoked, matches
from holdfast.rim import archive as archive_module
from holdfast.rim.archive import pack_source, unpack_archive
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.envelope import sign
from holdfast.wire.records import Staple
from holdfast.wire.release import Knobs, Release, release_id, sign_release, verify_release
from holdfast.wire.signed import Type

NOW = 1_800_000_000.0
NETWORK = bytes(range(16))
ROOT = create_root(b"r" * 32, NETWORK, "hold.example", NOW)
ROOTS = (ROOT.certificate,)
KEY = SigningKey(b"k" * 32)
PROOF = certify_release_key(ROOT, KEY, NOW)
RELEASE = Release(
    NETWORK, "0.2.0", "0.2.0", 1, 2, 2, hash_bytes(b"zip"), 3, Knobs(), int(NOW)
)  # fmt: skip


def read(staple: Staple, now: float = NOW, network: bytes = NETWORK) -> Release:
    return verify_release(ROOTS, staple, network, now)


def test_a_release_is_believed_and_known_by_its_hash() -> None:
    staple = sign_release(KEY, PROOF, RELEASE)
    assert read(staple) == RELEASE
    other = sign_release(KEY, PROOF, replace(RELEASE, knobs=Knobs(requests_per_s=5.0)))
    assert release_id(staple) != release_id(other), "other settings, another release"


def intermediate() -> tuple[Authority, SigningKey]:
    identity = SigningKey(b"h" * 32)
    key = TlsKey.from_bytes(b"i" * 32)
    return issue_intermediate(ROOT, key, NETWORK, identity.public, NOW), identity


def by_headquarters() -> Staple:
    """What a stolen headquarters can sign."""
    authority, identity = intermediate()
    return Staple(sign(identity, Type.RELEASE, RELEASE), authority.certificate)


def by_a_leaf_of_headquarters() -> Staple:
    """A certificate with the right role, issued by headquarters and not by the root."""
    authority, _ = intermediate()
    leaf = issue_leaf(
        authority, spki=TlsKey.from_bytes(KEY.seed).spki(), network=NETWORK, role=RELEASE_ROLE,
        node=KEY.node, dns_name="relay-eu-001.hold.example", serial=7, now=NOW, days=9,
    )  # fmt: skip
    return Staple(sign(KEY, Type.RELEASE, RELEASE), leaf)


def by_another_key() -> Staple:
    return Staple(sign(SigningKey(b"x" * 32), Type.RELEASE, RELEASE), PROOF)


def by_another_root() -> Staple:
    root = create_root(b"z" * 32, NETWORK, "hold.example", NOW)
    return sign_release(KEY, certify_release_key(root, KEY, NOW), RELEASE)


def for_another_network() -> Staple:
    return sign_release(KEY, PROOF, replace(RELEASE, network=b"n" * 16))


def changed_on_the_way() -> Staple:
    staple = sign_release(KEY, PROOF, RELEASE)
    body = staple.signed.body.replace(b"0.2.0", b"0.6.6")
    return replace(staple, signed=replace(staple.signed, body=body))


@pytest.mark.parametrize(
    "forge",
    [
        by_headquarters, by_a_leaf_of_headquarters, by_another_key, by_another_root,
        for_another_network, changed_on_the_way,
    ],
)  # fmt: skip
def test_nobody_else_makes_a_release(forge) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PeerFault):
        read(forge())


def test_a_release_key_ends_and_can_be_revoked() -> None:
    staple = sign_release(KEY, PROOF, RELEASE)
    with pytest.raises(PeerFault, match="expired"):
        read(staple, NOW + (RELEASE_KEY_DAYS + 1) * 86_400)
    entry = Revoked(b"", "", cert_info(PROOF).key_hash, "lost on a train", 0)

    def revoked(certificate: Presented) -> Revoked | None:
        return matches([entry], certificate)

    with pytest.raises(PeerFault, match="lost on a train"):
        verify_release(ROOTS, staple, NETWORK, NOW, revoked)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "a\nb"}, {"wire": 1}, {"wire_min": 3}, {"digest": b""}, {"size": 0},
        {"knobs": Knobs(requests_per_s=0.0)}, {"knobs": Knobs(sessions_max=-1)},
    ],
)  # fmt: skip
def test_a_statement_that_cannot_be_right_is_not_signed(wrong: dict[str, object]) -> None:
    with pytest.raises(PeerFault):
        sign_release(KEY, PROOF, replace(RELEASE, **wrong))


# --- Archives ------------------------------------------------------------------------------------
def source(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "holdfast"
    (package / "__pycache__").mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text('__version__ = "9"\n')
    (package / "__pycache__" / "x.pyc").write_bytes(b"left out")
    return tmp_path / "src"


def test_an_archive_goes_in_and_out_the_same_bytes_every_time(tmp_path: Path) -> None:
    data = pack_source(source(tmp_path))
    (tmp_path / "src" / "holdfast" / "__init__.py").touch()
    assert pack_source(tmp_path / "src") == data
    unpack_archive(data, tmp_path / "out")
    files = [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.py*")]
    assert files == ["holdfast/__init__.py"]


def test_what_is_unpacked_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and the directories that name them: power may fail after the rename."""
    synced, real = set(), os.fsync

    def fsync(fd: int) -> None:
        synced.add(Path(f"/proc/self/fd/{fd}").readlink())
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    out = tmp_path / "out"
    unpack_archive(zipped(INIT, ("holdfast/deep/er/file", b"x")), out)
    assert {out, *out.rglob("*")} <= synced


def zipped(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return out.getvalue()


INIT = ("holdfast/__init__.py", b"")


@pytest.mark.parametrize(
    "data",
    [
        b"no zip", b"", zipped(("other/x.py", b"")), zipped(INIT, ("../outside", b"x")),
        zipped(INIT, ("/outside", b"x")), zipped(INIT, ("holdfast/../../outside", b"x")),
        zipped(INIT)[:-10],
    ],
)  # fmt: skip
def test_an_archive_that_is_none_or_leaves_its_place_is_refused(
    tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(PeerFault):
        unpack_archive(data, tmp_path / "a" / "out")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "a" / "outside").exists()


def test_a_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "UNPACKED_BYTES_MAX", 100_000)
    assert UNPACKED_BYTES_MAX > 100_000
    with pytest.raises(PeerFault, match="too much"):
        unpack_archive(zipped(INIT, ("holdfast/big", bytes(200_000))), tmp_path / "out")


def test_a_source_that_is_not_ours_is_not_signed(tmp_path: Path) -> None:
    make_release_key(ROOT, tmp_path / "key", NOW, SystemEntropy())
    with pytest.raises(UsageError, match="does not say its"):
        make_bundle(source(tmp_path), tmp_path / "key", "x", Knobs())
    with pytest.raises(UsageError, match="no wheel"):
        make_bundle(tmp_path, tmp_path / "key", "x", Knobs())
    with pytest.raises(UsageError, match="release-key"):
        make_bundle(source(tmp_path), tmp_path, "x", Knobs())
