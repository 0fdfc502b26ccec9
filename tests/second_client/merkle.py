"""RFC 6962 trees over SHA-256, and the leaves of a receipt batch (section 5, push)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf_data(blob: bytes, tag: bytes, sequence: int, size: int, born: int) -> bytes:
    """What one blob's leaf in a receipt batch says."""
    return (
        blob + tag + sequence.to_bytes(8, "big") + size.to_bytes(4, "big") + born.to_bytes(4, "big")
    )


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def parent(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _half(count: int) -> int:
    """The largest power of two below the count: the size of the left subtree."""
    return 1 << (count - 1).bit_length() - 1


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; there is at least one."""
    if len(leaves) == 1:
        return leaves[0]
    half = _half(len(leaves))
    return parent(root(leaves[:half]), root(leaves[half:]))


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings of a leaf, from the leaf up."""
    if len(leaves) == 1:
        return []
    half = _half(len(leaves))
    if index < half:
        return [*path(leaves[:half], index), root(leaves[half:])]
    return [*path(leaves[half:], index - half), root(leaves[:half])]


def proves(leaf: bytes, index: int, size: int, siblings: Sequence[bytes], top: bytes) -> bool:
    """Whether the path leads from this leaf hash at `index` to the root of a tree of `size`."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    for sibling in siblings:
        if last == 0:
            return False
        if at % 2 or at == last:
            leaf = parent(sibling, leaf)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            leaf = parent(leaf, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and leaf == top
