"""The judge that compares trees must see every kind of difference."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli.trees import Tree, copy_tree, measure, mismatches


def _plant(top: Path) -> None:
    (top / "dir" / "empty").mkdir(parents=True)
    (top / "dir" / "file").write_bytes(b"content")
    (top / "run").write_bytes(b"#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("dir/file")
    with open(os.fsencode(top) + b"/odd\xff\nname", "wb"):
        pass


def test_a_copy_is_equal(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.mkdir()
    _plant(source)
    os.mkfifo(source / "pipe")
    assert copy_tree(source, tmp_path / "b") == Tree(3, 17)
    (source / "pipe").unlink()
    assert mismatches(source, tmp_path / "b") == []
    assert measure(source) == Tree(3, 17)


def _retarget(top: Path) -> None:
    (top / "link").unlink()
    (top / "link").symlink_to("elsewhere")


def _make_file_of_directory(top: Path) -> None:
    (top / "dir" / "empty").rmdir()
    (top / "dir" / "empty").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda top: (top / "dir" / "file").write_bytes(b"Content"), "content"),
        (lambda top: (top / "dir" / "file").write_bytes(b"content!"), "content"),
        (lambda top: (top / "run").unlink(), "only in one tree"),
        (lambda top: (top / "new").write_bytes(b""), "only in one tree"),
        (lambda top: (top / "run").chmod(0o644), "permissions"),
        (_retarget, "link target"),
        (_make_file_of_directory, "kind"),
    ],
)
def test_each_difference_is_seen(
    tmp_path: Path, change: Callable[[Path], object], what: str
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _plant(tmp_path / name)
    change(tmp_path / "b")
    found = mismatches(tmp_path / "a", tmp_path / "b")
    assert len(found) == 1
    assert what in found[0]


def test_what_a_copy_leaves_out_is_not_measured(tmp_path: Path) -> None:
    for name in ("kept", "site-packages"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"four")
    assert measure(tmp_path) == Tree(2, 8)
    assert measure(tmp_path, ("site-packages",)) == Tree(1, 4)
