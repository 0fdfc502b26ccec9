"""The two files that must not be held in memory: one of noise, one mostly of holes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from holdfast.limits import GIB, MIB
from holdfast.rim.entropy import Entropy

NOISE_BYTES: Final = 2 * GIB
SPARSE_BYTES: Final = 10 * GIB
_STEP_BYTES: Final = 8 * MIB
_ISLANDS: Final = 5
_ISLAND_BYTES: Final = 1 * MIB


def make_large(top: Path, entropy: Entropy) -> None:
    """Make `top` with `noise` (nothing to compress, nothing twice) and `sparse` (a few islands of
    noise between holes, and a hole at the end)."""
    top.mkdir()
    with open(top / "noise", "wb") as noise:
        for _ in range(0, NOISE_BYTES, _STEP_BYTES):
            noise.write(entropy.bytes(_STEP_BYTES))
    fd = os.open(top / "sparse", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.ftruncate(fd, SPARSE_BYTES)
        for number in range(_ISLANDS):
            offset = number * SPARSE_BYTES // _ISLANDS + 12_345
            os.pwrite(fd, entropy.bytes(_ISLAND_BYTES), offset)
    finally:
        os.close(fd)
