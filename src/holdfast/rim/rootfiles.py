"""The directory of a network root, kept off headquarters' disk (D6).

| file          | what                                                                       |
|---------------|----------------------------------------------------------------------------|
| root.crt      | the root set, PEM, public: this root first, then other roots and links     |
| root.age      | the root's key (PKCS#8 PEM) in an age file: under a passphrase,            |
| root.identity | or, for an embedded root, under the age key that lies here beside it       |
| card-N.txt    | or instead of root.age: SLIP-39 cards, to be carried apart and removed     |

Whoever has the key can make nodes of this network, and nothing else: it reads no data. An
*embedded* root (`holdfast up`) is for one machine and for trying out; its directory is moved to a
stick, or replaced by a rollover, when the network becomes serious.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast.crypto import shares
from holdfast.crypto.certificates import (
    Authority,
    TlsKey,
    cert_info,
    create_root,
    fingerprint,
    from_pem,
    to_pem,
)
from holdfast.crypto.certinfo import is_self_signed
from holdfast.crypto.rootset import link_roots
from holdfast.crypto.sealedfile import make_identity, seal, seal_to, unseal, unseal_with
from holdfast.errors import PeerFault, UsageError
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, write_file

ROOT_SET: Final = "root.crt"
SEALED_KEY: Final = "root.age"
IDENTITY: Final = "root.identity"
_CARD: Final = "card-{}.txt"


class Custody:
    """How the root's key is kept: exactly one of the three."""

    def __init__(
        self, *, passphrase: str | None = None, plan: tuple[int, int] | None = None
    ) -> None:
        assert passphrase is None or plan is None, "one way of keeping the key"
        self.passphrase = passphrase
        self.plan = plan


EMBEDDED: Final = Custody()
"""The age key lies beside the age file."""


def create(
    directory: Path,
    custody: Custody,
    *,
    network: bytes,
    domain: str,
    now: float,
    entropy: Entropy,
) -> Authority:
    """Make a root in `directory`. Raises UsageError when there is one already."""
    if (directory / ROOT_SET).exists():
        raise UsageError(f"{directory} holds a root already; choose another directory")
    seed = entropy.bytes(32)
    root = create_root(seed, network, domain, now)
    make_private_directory(directory)
    _keep(directory, custody, seed, root)
    write_file(directory / ROOT_SET, to_pem([root.certificate]), mode=0o644)
    return root


def roll_over(
    old: Authority,
    old_directory: Path,
    directory: Path,
    custody: Custody,
    *,
    now: float,
    entropy: Entropy,
) -> Authority:
    """A second root for the network of `old`, linked by it; both directories get the whole set."""
    info = cert_info(old.certificate)
    assert info.name is not None
    root = create(
        directory, custody, network=info.name.network, domain=info.domain, now=now, entropy=entropy
    )
    others = [item for item in root_set(old_directory) if item != old.certificate]
    union = (root.certificate, old.certificate, link_roots(old, root.certificate, now), *others)
    write_file(directory / ROOT_SET, to_pem(union), mode=0o644)
    behind = (old.certificate, *(item for item in union if item != old.certificate))
    write_file(old_directory / ROOT_SET, to_pem(behind), mode=0o644)
    return root


def drop(directory: Path, unwanted: bytes) -> tuple[bytes, ...]:
    """Take the root with this fingerprint out of the set: the end of a rollover.

    Links stay, so that a node that slept through it can still follow. Raises UsageError for the
    directory's own root and for one that is not in the set.
    """
    before = root_set(directory)
    after = tuple(item for item in before if fingerprint(item) != unwanted)
    if after == before:
        raise UsageError("no root in the set has this fingerprint; see: holdfast root show")
    if after[:1] != before[:1]:
        raise UsageError("that is this directory's own root; drop it from the other directory")
    write_file(directory / ROOT_SET, to_pem(after), mode=0o644)
    return after


def root_set(directory: Path) -> tuple[bytes, ...]:
    """Roots and links (DER), the directory's own root first. Raises UsageError."""
    data = read_file(directory / ROOT_SET)
    if data is None:
        raise UsageError(f"no root in {directory}; make one with: holdfast root create")
    try:
        items = from_pem(data)
        first = cert_info(items[0])
    except PeerFault as fault:
        raise UsageError(f"{directory / ROOT_SET}: {fault}") from fault
    if first.name is None or first.name.role != "root" or not is_self_signed(items[0]):
        raise UsageError(f"{directory / ROOT_SET} does not begin with a root certificate")
    return items


def needs_secret(directory: Path) -> bool:
    """Whether a passphrase or cards are needed to open the key, as opposed to a key file."""
    return not (directory / IDENTITY).exists()


def open_root(
    directory: Path, *, passphrase: str | None = None, cards: Sequence[str] = ()
) -> Authority:
    """The root with its key. Raises UsageError when the secret is missing, wrong or another's."""
    certificate = root_set(directory)[0]
    if cards:
        key = TlsKey.from_bytes(shares.join(cards))
    else:
        key = TlsKey.from_pem(_unsealed(directory, passphrase))
    if key.spki() != cert_info(certificate).spki:
        raise UsageError("this key is not the key of the root in root.crt")
    return Authority(certificate, key)


def _unsealed(directory: Path, passphrase: str | None) -> bytes:
    sealed = read_file(directory / SEALED_KEY)
    if sealed is None:
        raise UsageError(f"no {SEALED_KEY} in {directory}; give the cards with --card")
    if passphrase is not None:
        return unseal(sealed, passphrase)
    identity = read_file(directory / IDENTITY)
    if identity is None:
        raise UsageError("the root is under a passphrase; give it with --passphrase-file")
    return unseal_with(sealed, identity.decode(errors="replace"))


def _keep(directory: Path, custody: Custody, seed: bytes, root: Authority) -> None:
    if custody.plan is not None:
        threshold, count = custody.plan
        for number, card in enumerate(shares.split(seed, threshold, count), 1):
            text = _card_text(root, card, number, threshold, count)
            write_file(directory / _CARD.format(number), text.encode())
    elif custody.passphrase is not None:
        write_file(directory / SEALED_KEY, seal(root.key.pem(), custody.passphrase))
    else:
        identity = make_identity()
        write_file(directory / IDENTITY, f"# opens root.age\n{identity}\n".encode())
        write_file(directory / SEALED_KEY, seal_to(root.key.pem(), identity))


def _card_text(root: Authority, card: str, number: int, threshold: int, count: int) -> str:
    info = cert_info(root.certificate)
    words = card.split()
    rows = [" ".join(words[at : at + 6]) for at in range(0, len(words), 6)]
    lines = (
        f"# Holdfast root of {info.domain}, card {number} of {count}; {threshold} open it.",
        f"# Fingerprint {fingerprint(root.certificate).hex()}",
        "# Copy it to paper, keep it apart from the others, then remove this file.",
        *rows,
    )
    return "\n".join(lines) + "\n"


def read_card(text: str) -> str:
    """The words of a card file, without its comments."""
    return " ".join(line for line in text.splitlines() if not line.startswith("#"))
