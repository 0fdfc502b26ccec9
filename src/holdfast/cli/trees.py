"""Directory trees as a judge sees them: copied whole, compared byte by byte."""

from __future__ import annotations

import os
import shutil
import stat
import sysconfig
from pathlib import Path
from typing import Final

import msgspec

_LEFT_OUT: Final = ("__pycache__", "site-packages")
_BLOCK_BYTES: Final = 1 << 20


class Tree(msgspec.Struct, frozen=True):
    """How much a tree holds."""

    files: int
    bytes: int


def standard_library() -> Path:
    """The running Python's standard library: a real folder that every machine has."""
    return Path(sysconfig.get_path("stdlib"))


def copy_tree(source: Path, target: Path) -> Tree:
    """Copy `source` to a new `target`: symlinks as links, special files left out.

    Caches and installed packages are left out of the standard library only.
    """
    left_out = left_out_of(source)

    def ignore(folder: str, names: list[str]) -> set[str]:
        special = {name for name in names if _is_special(os.path.join(folder, name))}
        return special | {name for name in names if name in left_out}

    shutil.copytree(source, target, symlinks=True, ignore=ignore)
    return measure(target)


def left_out_of(source: Path) -> tuple[str, ...]:
    """Names that a copy of `source` leaves out."""
    return _LEFT_OUT if source == standard_library().resolve() else ()


def _is_special(path: str) -> bool:
    mode = os.lstat(path).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def measure(top: Path, left_out: tuple[str, ...] = ()) -> Tree:
    """Count the regular files of a tree and their bytes, directories called `left_out` apart."""
    files = size = 0
    for folder, folders, names in os.walk(os.fsencode(top)):
        folders[:] = [name for name in folders if os.fsdecode(name) not in left_out]
        for name in names:
            about = os.lstat(os.path.join(folder, name))
            if stat.S_ISREG(about.st_mode):
                files += 1
                size += about.st_size
    return Tree(files, size)


def mismatches(left: Path, right: Path) -> list[str]:
    """Every path that differs in presence, kind, permission bits, link target or content."""
    return _compare(os.fsencode(left), os.fsencode(right), b"")


def _compare(left: bytes, right: bytes, below: bytes) -> list[str]:
    found: list[str] = []
    here, there = (_listing(os.path.join(top, below)) for top in (left, right))
    for name in sorted(here | there):
        path = os.path.join(below, name)
        if name not in here or name not in there:
            found.append(f"{os.fsdecode(path)}: only in one tree")
            continue
        a, b = os.path.join(left, path), os.path.join(right, path)
        difference = _difference(a, b)
        if difference:
            found.append(f"{os.fsdecode(path)}: {difference}")
        elif stat.S_ISDIR(os.lstat(a).st_mode):
            found += _compare(left, right, path)
    return found


def _listing(folder: bytes) -> set[bytes]:
    return set(os.listdir(folder)) - {b".holdfast~"}


def _difference(left: bytes, right: bytes) -> str:
    a, b = os.lstat(left), os.lstat(right)
    if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
        return "another kind of file"
    if stat.S_ISLNK(a.st_mode):
        return "" if os.readlink(left) == os.readlink(right) else "another link target"
    if stat.S_IMODE(a.st_mode) & 0o777 != stat.S_IMODE(b.st_mode) & 0o777:
        return "other permissions"
    if stat.S_ISREG(a.st_mode):
        return "" if a.st_size == b.st_size and _same(left, right) else "other content"
    return ""


def _same(left: bytes, right: bytes) -> bool:
    with open(left, "rb") as a, open(right, "rb") as b:
        while True:
            first, second = a.read(_BLOCK_BYTES), b.read(_BLOCK_BYTES)
            if first != second:
                return False
            if not first:
                return True
