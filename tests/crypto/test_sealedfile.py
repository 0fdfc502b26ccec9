"""Sealed files open with the right secret, by us and by anybody who reads age's specification."""

from __future__ import annotations

import pytest
from tests.crypto.age_reader import open_with_identity, open_with_passphrase

from holdfast.crypto.sealedfile import (
    check_passphrase,
    make_identity,
    seal,
    seal_to,
    unseal,
    unseal_with,
)
from holdfast.errors import UsageError

DATA = b"the root key, " * 10_000
PASSPHRASE = "correct horse battery staple"


@pytest.mark.system
def test_a_passphrase_file_is_age_and_opens_with_nothing_else() -> None:
    sealed = seal(DATA, PASSPHRASE)
    assert sealed.startswith(b"age-encryption.org/v1\n-> scrypt ")
    assert open_with_passphrase(sealed, PASSPHRASE) == DATA
    assert unseal(sealed, PASSPHRASE) == DATA
    with pytest.raises(UsageError, match="passphrase"):
        unseal(sealed, PASSPHRASE + "!")


def test_a_key_file_is_age_and_opens_with_nothing_else() -> None:
    identity, other = make_identity(), make_identity()
    assert identity.startswith("AGE-SECRET-KEY-1")
    sealed = seal_to(DATA, f"# made for the test\n{identity}\n")
    assert open_with_identity(sealed, identity) == DATA
    assert unseal_with(sealed, identity) == DATA
    with pytest.raises(UsageError, match="key file"):
        unseal_with(sealed, other)


def test_damage_and_other_files_are_the_operators_news() -> None:
    identity = make_identity()
    sealed = seal_to(DATA, identity)
    damaged = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    for bad in (b"", b"not age", damaged, sealed[:-20], sealed[:100]):
        with pytest.raises(UsageError):
            unseal_with(bad, identity)
        with pytest.raises(UsageError):
            unseal(bad, PASSPHRASE)
    for text in ("", "AGE-SECRET-KEY-1", f"{identity}\n{identity}", identity[:-1]):
        with pytest.raises(UsageError):
            unseal_with(sealed, text)
        with pytest.raises(UsageError):
            seal_to(DATA, text)


@pytest.mark.parametrize("weak", ["", "short", "eleven chrs", " leading space", "two\nlines of it"])
def test_a_weak_passphrase_is_refused(weak: str) -> None:
    with pytest.raises(UsageError):
        check_passphrase(weak)
    with pytest.raises(UsageError):
        seal(DATA, weak)
    check_passphrase("twelve chars")
