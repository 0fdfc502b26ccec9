"""Files sealed in the age format, so that stock `age` opens them without Holdfast.

Two ways: with a passphrase that a person keeps (scrypt makes guessing slow, and opening takes a
second or more), or to an age key pair where a file holds the key. Decades from now, whoever has the
file and the secret needs nothing of ours: `age -d root.age`, or `age -d -i root.identity root.age`.

age draws its own file key and nonces, so the same content never gives the same file twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyrage  # type: ignore[import-untyped]

from holdfast.errors import UsageError

PASSPHRASE_LETTERS_MIN: Final = 12
"""scrypt costs a guesser about a second each; five random words are beyond any of them."""
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Keys and envelopes are small; the whole file is held in memory."""
_KEY_ERRORS: Final = (pyrage.RecipientError, ValueError)
_OPEN_ERRORS: Final = (pyrage.DecryptError, pyrage.IdentityError, ValueError)


def check_passphrase(passphrase: str) -> None:
    """Raises UsageError for one that is too short or that cannot be typed again."""
    if len(passphrase) < PASSPHRASE_LETTERS_MIN:
        raise UsageError(
            f"the passphrase has {len(passphrase)} characters; "
            f"use at least {PASSPHRASE_LETTERS_MIN}, better five random words"
        )
    if not passphrase.isprintable() or passphrase != passphrase.strip():
        raise UsageError("the passphrase begins or ends with a space or holds a control character")


def seal(data: bytes, passphrase: str) -> bytes:
    """`data` as an age file that `passphrase` opens. Raises UsageError for a weak one."""
    check_passphrase(passphrase)
    assert len(data) <= FILE_BYTES_MAX
    return bytes(pyrage.passphrase.encrypt(data, passphrase))


def unseal(sealed: bytes, passphrase: str) -> bytes:
    """What an age file holds. Raises UsageError for a wrong passphrase or another kind of file."""
    if len(sealed) > FILE_BYTES_MAX:
        raise UsageError(f"sealed file of {len(sealed)} bytes, limit {FILE_BYTES_MAX}")
    try:
        return bytes(pyrage.passphrase.decrypt(sealed, passphrase))
    except _OPEN_ERRORS as error:
        raise UsageError(f"the file does not open with this passphrase ({error})") from error


def make_identity() -> str:
    """A fresh age identity, `AGE-SECRET-KEY-1...`: the line a key file holds."""
    return str(pyrage.x25519.Identity.generate())


def seal_to(data: bytes, identity: str) -> bytes:
    """`data` as an age file that the key file's `identity` opens."""
    assert len(data) <= FILE_BYTES_MAX
    recipient = _identity(identity).to_public()
    return bytes(pyrage.encrypt(data, [recipient]))


def unseal_with(sealed: bytes, identity: str) -> bytes:
    """What an age file sealed to `identity` holds. Raises UsageError."""
    return open_for(sealed, identity)


def seal_for(data: bytes, recipients: Sequence[str], *, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """`data` as an age file that any of the `age1...` recipients opens. Raises UsageError."""
    if len(data) > bytes_max:
        raise UsageError(f"{len(data)} bytes to seal, limit {bytes_max}")
    try:
        keys = [pyrage.x25519.Recipient.from_str(text.strip()) for text in recipients]
    except _KEY_ERRORS as error:
        raise UsageError("a recipient is one line, age1...") from error
    return bytes(pyrage.encrypt(data, keys))


def open_for(sealed: bytes, identity: str, *, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """What an age file holds for this key file. Raises UsageError."""
    if len(sealed) > bytes_max:
        raise UsageError(f"sealed file of {len(sealed)} bytes, limit {bytes_max}")
    key = _identity(identity)
    try:
        return bytes(pyrage.decrypt(sealed, [key]))
    except _OPEN_ERRORS as error:
        raise UsageError(f"the file does not open with this key file ({error})") from error


def recipient_of(identity: str) -> str:
    """The `age1...` line that seals to this key file. Raises UsageError."""
    return str(_identity(identity).to_public())


def _identity(text: str) -> pyrage.x25519.Identity:
    """The identity in a key file: its first line that is no comment."""
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(keys) != 1:
        raise UsageError("a key file holds one line, AGE-SECRET-KEY-1...")
    try:
        return pyrage.x25519.Identity.from_str(keys[0])
    except _OPEN_ERRORS as error:
        raise UsageError("this is no age key file") from error
