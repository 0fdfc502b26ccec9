"""Words and the keys that grow from them, against the published vectors (D7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.phrase import PURPOSE, Phrase, derive
from holdfast.errors import UsageError

HARDENED_VECTORS = [
    # SLIP-0010, "Test vector 1 for ed25519": path, chain code, private, public.
    (
        "000102030405060708090a0b0c0d0e0f",
        (),
        "90046a93de5380a72b5e45010748567d5ea02bbf6522f979e05c0d8d8ca9fffb",
        "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
        "a4b2856bfec510abab89753fac1ac0e1112364e7d250545963f135f2a33188ed",
    ),
    (
        "000102030405060708090a0b0c0d0e0f",
        (0,),
        "8b59aa11380b624e81507a27fedda59fea6d0b779a778918a2fd3590e16e9c69",
        "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
        "8c8a13df77a28f3445213a0f432fde644acaa215fc72dcdf300d5efaa85d350c",
    ),
    (
        "000102030405060708090a0b0c0d0e0f",
        (0, 1),
        "a320425f77d1b5c2505a6b1b27382b37368ee640e3557c315416801243552f14",
        "b1d0bad404bf35da785a64ca1ac54b2617211d2777696fbffaf208f746ae84f2",
        "1932a5270f335bed617d5b935c80aedb1a35bd9fc1e31acafd5372c30f5c1187",
    ),
    (
        "000102030405060708090a0b0c0d0e0f",
        (0, 1, 2, 2, 1_000_000_000),
        "68789923a0cac2cd5a29172a475fe9e0fb14cd6adb5ad98a3fa70333e7afa230",
        "8f94d394a8e8fd6b1bc2f3f49f5c47e385281d5c17e65324b0f62483e37e8793",
        "3c24da049451555d51a7014a37337aa4e12d41e485abccfa46b47dfb2af54b7a",
    ),
    # "Test vector 2 for ed25519".
    (
        "fffcf9f6f3f0edeae7e4e1dedbd8d5d2cfccc9c6c3c0bdbab7b4b1aeaba8a5a2"
        "9f9c999693908d8a8784817e7b7875726f6c696663605d5a5754514e4b484542",
        (),
        "ef70a74db9c3a5af931b5fe73ed8e1a53464133654fd55e7a66f8570b8e33c3b",
        "171cb88b1b3c1db25add599712e36245d75bc65a1a5c9e18d76f9f2b1eab4012",
        "8fe9693f8fa62a4305a140b9764c5ee01e455963744fe18204b4fb948249308a",
    ),
]

BIP39_VECTORS = [
    (
        bytes(16),
        "abandon " * 11 + "about",
        "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1"
        "9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4",
    ),
    (
        b"\x7f" * 32,
        "legal winner thank year wave sausage worth useful legal winner thank year wave sausage "
        "worth useful legal winner thank year wave sausage worth title",
        None,
    ),
]


@pytest.mark.parametrize(("seed", "path", "chain", "key", "public"), HARDENED_VECTORS)
def test_slip_0010_vectors(
    seed: str, path: tuple[int, ...], chain: str, key: str, public: str
) -> None:
    node = derive(bytes.fromhex(seed), path)
    assert (node.chain.hex(), node.key.hex()) == (chain, key)
    assert SigningKey(node.key).public.hex() == public


@pytest.mark.parametrize(("entropy", "words", "seed"), BIP39_VECTORS)
def test_bip39_vectors(entropy: bytes, words: str, seed: str | None) -> None:
    phrase = Phrase.from_entropy(entropy)
    assert " ".join(phrase.words()) == words
    if seed is not None:
        assert phrase.seed().hex() == seed


def test_branches_are_apart_and_stable() -> None:
    """Changing a path would lose every person's keys: the values are frozen here."""
    phrase = Phrase.from_entropy(bytes(range(32)))
    assert phrase.root().seed == derive(phrase.seed(), (PURPOSE, 0, 0)).key
    assert phrase.root().public.hex() == FROZEN["root"]
    assert phrase.keyring_secret().hex() == FROZEN["keyring"]
    assert phrase.recovery_secret().hex() == FROZEN["recovery"]
    secrets = {
        phrase.root().seed,
        phrase.root(1).seed,
        phrase.keyring_secret(),
        phrase.keyring_secret(1),
        phrase.recovery_secret(),
    }
    assert len(secrets) == 5


FROZEN = {
    "root": "59e13e65eeacfa4b8ae975287ec691c1289909878503d721306c66c3d94ae661",
    "keyring": "2594eb8b4b150cfe6d693553d28803678b7a3a2642939d258ae5098dba2dcb57",
    "recovery": "c32e32baa65ac547139ceeec1e32f195cc1149035dd518893d3abfec6604581f",
}


@given(st.sampled_from([16, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_what_is_written_down_can_be_typed_in_again(entropy: bytes) -> None:
    phrase = Phrase.from_entropy(entropy)
    words = phrase.words()
    assert len(words) == {16: 12, 32: 24}[len(entropy)]
    typed = "  ".join(word.upper() if index % 2 else word[:4] for index, word in enumerate(words))
    assert Phrase.parse(f"\n{typed} ").words() == words


def test_what_cannot_be_a_phrase_is_refused_with_the_place() -> None:
    words = list(Phrase.from_entropy(bytes(range(32))).words())
    with pytest.raises(UsageError, match="23"):
        Phrase.parse(" ".join(words[:-1]))
    with pytest.raises(UsageError, match="word 3"):
        Phrase.parse(" ".join([*words[:2], "holdfast", *words[3:]]))
    with pytest.raises(UsageError, match=r"word 1, .*abandon"):
        Phrase.parse(" ".join(["abandoned", *words[1:]]))
    with pytest.raises(UsageError, match="checksum"):
        Phrase.parse("abandon " * 12)
    with pytest.raises(UsageError, match="word 1"):
        Phrase.parse(" ".join(["aban!", *words[1:]]))


def test_a_phrase_does_not_show_itself() -> None:
    phrase = Phrase.from_entropy(bytes(range(32)))
    assert repr(phrase) == str(phrase) == "Phrase(24 words)"
