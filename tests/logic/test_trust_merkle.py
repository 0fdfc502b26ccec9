"""RFC 6962 by its own definition, by known vectors, and under forgery (D15)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.logic.trust.merkle import (
    EMPTY_ROOT,
    Tree,
    path,
    paths,
    root,
    verify_consistency,
    verify_path,
)

VECTOR_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
"""The input of Certificate Transparency's published test vectors."""
VECTOR_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
VECTOR_PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}
VECTOR_CONSISTENCY = {
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = naive_split(len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1."""
    if len(leaves) == 1:
        return []
    k = naive_split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_proof(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962 §2.1.2, SUBPROOF."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = naive_split(len(leaves))
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def numbered(count: int) -> list[bytes]:
    return [index.to_bytes(4, "big") for index in range(count)]


def test_known_roots() -> None:
    tree = Tree()
    assert root([]) == tree.root() == EMPTY_ROOT
    for size, expected in enumerate(VECTOR_ROOTS, 1):
        tree.append(VECTOR_LEAVES[size - 1])
        assert root(VECTOR_LEAVES[:size]).hex() == tree.root().hex() == expected


@pytest.mark.parametrize(("index", "size"), VECTOR_PATHS)
def test_known_paths(index: int, size: int) -> None:
    expected = VECTOR_PATHS[index, size]
    assert [item.hex() for item in path(VECTOR_LEAVES[:size], index)] == expected


@pytest.mark.parametrize(("old", "new"), VECTOR_CONSISTENCY)
def test_known_consistency_proofs(old: int, new: int) -> None:
    expected = VECTOR_CONSISTENCY[old, new]
    assert [item.hex() for item in Tree(VECTOR_LEAVES).consistency(old, new)] == expected


@pytest.mark.parametrize("size", range(34))
def test_every_path_and_proof_of_small_trees_follows_the_rfc(size: int) -> None:
    leaves = numbered(size)
    tree = Tree(leaves)
    batch_root, batch_paths = paths(leaves)
    assert batch_root == tree.root() == root(leaves) == naive_root(leaves)
    assert len(batch_paths) == len(tree) == size
    for index in range(size):
        expected = tuple(naive_path(index, leaves))
        assert batch_paths[index] == tree.path(index) == expected
        assert verify_path(batch_root, size, index, leaves[index], expected)
    for old in range(1, size + 1):
        proof = tree.consistency(old)
        assert proof == tuple(naive_proof(old, leaves))
        assert verify_consistency(old, tree.root(old), size, batch_root, proof)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 1000), st.data())
def test_batches_of_any_size(size: int, data: st.DataObject) -> None:
    """Receipt batches: every path verifies at its own index and at no other."""
    leaves = numbered(size)
    batch_root, batch_paths = paths(leaves)
    index = data.draw(st.integers(0, size - 1))
    wrong = data.draw(st.integers(-1, size))
    assert verify_path(batch_root, size, index, leaves[index], batch_paths[index])
    if wrong != index:
        assert not verify_path(batch_root, size, wrong, leaves[index], batch_paths[index])
        if 0 <= wrong < size:
            assert not verify_path(batch_root, size, index, leaves[wrong], batch_paths[index])


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 200), st.data())
def test_history_of_any_size(size: int, data: st.DataObject) -> None:
    tree = Tree(numbered(size))
    middle = data.draw(st.integers(0, size))
    old = data.draw(st.integers(0, middle))
    proof = tree.consistency(old, middle)
    assert verify_consistency(old, tree.root(old), middle, tree.root(middle), proof)
    if old < middle:
        index = data.draw(st.integers(0, middle - 1))
        assert verify_path(
            tree.root(middle), middle, index, numbered(size)[index], tree.path(index, middle)
        )


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 64), st.data())
def test_a_forged_history_is_refused(size: int, data: st.DataObject) -> None:
    """A tree in which one past leaf was changed proves nothing of the tree that was published."""
    leaves = numbered(size)
    old = data.draw(st.integers(1, size - 1))
    published = root(leaves[:old])
    changed = data.draw(st.integers(0, old - 1))
    forged = Tree([b"forged" if i == changed else leaf for i, leaf in enumerate(leaves)])
    proof = forged.consistency(old)
    assert not verify_consistency(old, published, size, forged.root(), proof)
    assert verify_consistency(old, forged.root(old), size, forged.root(), proof)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 40), st.data())
def test_a_changed_proof_is_refused(size: int, data: st.DataObject) -> None:
    leaves = numbered(size)
    batch_root, batch_paths = paths(leaves)
    index = data.draw(st.integers(0, size - 1))
    good = batch_paths[index]
    extra = data.draw(st.binary(min_size=32, max_size=32))
    for bad in ((*good, extra), (extra, *good), good[1:], good[:-1], (*good, b"short")):
        if tuple(bad) != good:
            assert not verify_path(batch_root, size, index, leaves[index], bad)
    if good:
        place = data.draw(st.integers(0, len(good) - 1))
        flipped = bytes((good[place][0] ^ 1,)) + good[place][1:]
        bad = (*good[:place], flipped, *good[place + 1 :])
        assert not verify_path(batch_root, size, index, leaves[index], bad)


@given(
    st.integers(-5, 2**70),
    st.integers(-5, 2**70),
    st.lists(st.binary(max_size=40), max_size=200),
    st.binary(max_size=40),
)
def test_hostile_proofs_of_any_shape_are_only_false(
    old: int, new: int, proof: list[bytes], digest: bytes
) -> None:
    assert not verify_path(digest, new, old, b"leaf", proof)
    if not (old == new and digest and not proof) and old != 0:
        assert not verify_consistency(old, digest, new, digest + b"x", proof)


def test_the_empty_tree_and_equal_trees() -> None:
    tree = Tree(numbered(3))
    assert verify_consistency(0, EMPTY_ROOT, 3, tree.root(), ())
    assert not verify_consistency(0, tree.root(), 3, tree.root(), ())
    assert not verify_consistency(0, EMPTY_ROOT, 0, tree.root(), ())
    assert verify_consistency(3, tree.root(), 3, tree.root(), ())
    assert not verify_consistency(3, tree.root(), 3, tree.root(), (tree.root(),))
    assert not verify_consistency(3, tree.root(2), 3, tree.root(), ())
    assert not verify_consistency(4, tree.root(), 3, tree.root(), ())
    assert paths([]) == (EMPTY_ROOT, [])


def test_a_leaf_is_never_taken_for_a_node() -> None:
    """Second preimage: the concatenation of two hashes is not a leaf of the same root."""
    leaves = numbered(2)
    hashes = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    assert root([hashes[0] + hashes[1]]) != root(leaves)
    assert not verify_path(root(leaves), 1, 0, hashes[0] + hashes[1], ())
