"""The disk side: descriptors, renames that refuse, the index, what a scan sees."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast.device.folder import disk as disk_module
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.index import (
    DIRECTORY,
    FILE,
    RACY,
    FolderIndex,
    Placing,
    Stat,
    row_of,
)
from holdfast.device.folder.place import Placer
from holdfast.device.folder.scan import RACY_NS, Scan, is_busy, scan, settled
from holdfast.errors import OperationFault
from holdfast.logic.group.changeset import Piece

LATER_NS = 10**19


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(os.fsencode(tmp_path))


@pytest.fixture
def index(tmp_path: Path) -> FolderIndex:
    (tmp_path / "state").mkdir()
    return FolderIndex(tmp_path / "state" / "index")


# --- descriptors ---------------------------------------------------------------------------------
def test_no_walk_goes_through_a_link(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "real/below/x").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("real")
    for work in (
        lambda: disk.open_read(b"link/below/x"),
        lambda: disk.create(b"link/new"),
        lambda: disk.mkdir(b"link/d", 0o755),
        lambda: disk.unlink(b"link/below/x"),
        lambda: disk.rename_new(b"real/below/x", b"link/x"),
        lambda: disk.lstat(b"link/below/x"),
        lambda: disk.directory(b"link"),
    ):
        with pytest.raises(OSError):
            work()
    assert sorted(p.name for p in (tmp_path / "real").rglob("*")) == ["below", "x"]


def test_a_final_link_is_not_opened_either(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "x").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("x")
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in (b"link", b"d", b"pipe"):
        with pytest.raises(OSError):
            disk.open_read(name)
    with pytest.raises(OSError):
        disk.create(b"link", fresh=False)


def test_more_directories_than_descriptors(tmp_path: Path, disk: Disk) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(300):
        path = b"/".join([b"d%d" % number, b"e", b"f"])
        for depth in (1, 2, 3):
            disk.mkdir(b"/".join(path.split(b"/")[:depth]), 0o755)
        os.close(disk.create(path + b"/x"))
    for number in range(300):
        os.close(disk.open_read(b"d%d/e/f/x" % number))
    assert len(os.listdir("/proc/self/fd")) < before + 80
    disk.close()
    assert len(os.listdir("/proc/self/fd")) < before


def test_fresh_files_never_write_into_an_old_inode(tmp_path: Path, disk: Disk) -> None:
    """What an earlier try left may be a second name of a person's file."""
    (tmp_path / "mine").write_bytes(b"precious")
    disk.link(b"mine", b"staged")
    fd = disk.create(b"staged")
    disk.write(fd, b"other", 0)
    os.close(fd)
    assert (tmp_path / "mine").read_bytes() == b"precious"
    assert (tmp_path / "staged").read_bytes() == b"other"


# --- renames -------------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", [True, False])
def test_a_new_name_is_never_taken_from_somebody(
    tmp_path: Path, disk: Disk, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(disk_module, "_renameat2", None)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "there").write_bytes(b"there")
    with pytest.raises(FileExistsError):
        disk.rename_new(b"new", b"there")
    assert (tmp_path / "there").read_bytes() == b"there"
    disk.rename_new(b"new", b"free")
    assert (tmp_path / "free").read_bytes() == b"new"
    assert disk.exchange(b"free", b"there") is kernel
    assert ((tmp_path / "free").read_bytes() == b"there") is kernel


@pytest.mark.parametrize("kernel", [True, False])
def test_placing_over_a_known_file(
    tmp_path: Path, disk: Disk, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(disk_module, "_renameat2", None)
    (tmp_path / "x").write_bytes(b"old")
    placer = Placer(disk, "pc", set(), {})
    known = placer.look(b"x")
    assert known is not None
    row = row_of(b"x", known, b"f", (b"o" * 32, 0))
    (tmp_path / "staged").write_bytes(b"new")
    placed = placer.place(b"staged", b"x", row)
    assert (placed.problem, placed.aside) == ("", b"")
    assert placed.stat == placer.look(b"x")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert not (tmp_path / "staged").exists()


def test_somebody_writes_between_the_check_and_the_exchange(tmp_path: Path) -> None:
    """The window of every check-then-rename: what came out of the exchange is looked at again."""

    class Hasty(Disk):
        def step(self, name: str) -> None:
            if name == "exchange":
                (tmp_path / "x").write_bytes(b"in the last moment")

    disk = Hasty(os.fsencode(tmp_path))
    (tmp_path / "x").write_bytes(b"old")
    placer = Placer(disk, "pc", set(), {})
    known = placer.look(b"x")
    assert known is not None
    (tmp_path / "staged").write_bytes(b"new")
    placed = placer.place(b"staged", b"x", row_of(b"x", known, b"f", (b"o" * 32, 0)))
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / os.fsdecode(placed.aside)).read_bytes() == b"in the last moment"
    disk.close()


UNPRIVILEGED = """
import os, sys
from holdfast.device.folder.disk import Disk
from holdfast.device.folder.place import Placer
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
top = sys.argv[1]
os.mkdir(top + "/d"); open(top + "/staged", "wb").close(); os.chmod(top + "/d", 0o555)
opened = {}
placer = Placer(Disk(os.fsencode(top)), "pc", set(), opened)
placed = placer.place(b"staged", b"d/x", None)
assert placed.stat is not None, placed
assert opened == {b"d": 0o555}, opened
assert placer.make_directory(b"d/e", 0o755).stat is not None
assert placer.make_directory(b"n" * 250, 0o000).stat is not None
"""


def test_a_directory_that_may_not_be_written_is_opened_for_the_while(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and "pytest" in str(parent):
            parent.chmod(0o755)
    subprocess.run([sys.executable, "-c", UNPRIVILEGED, str(tmp_path)], check=True)


# --- scanning ------------------------------------------------------------------------------------
def test_a_scan_compares_and_names_what_it_skips(
    tmp_path: Path, disk: Disk, index: FolderIndex
) -> None:
    (tmp_path / "top/d").mkdir(parents=True)
    (tmp_path / "top/d/x").write_bytes(b"1")
    (tmp_path / "top/.holdfast~").mkdir()
    (tmp_path / "top/.holdfast~/half").write_bytes(b"ours")
    os.mkfifo(tmp_path / "top/pipe")
    top = Disk(os.fsencode(tmp_path / "top"))
    first = scan(top, {}, LATER_NS)
    assert {seen.path for seen in first.seen} == {b"d", b"d/x"}
    assert [path for path, _ in first.skipped] == [b"pipe"]
    rows = {s.path: row_of(s.path, settled(s.stat, LATER_NS), b"f", None) for s in first.seen}
    again = scan(top, rows, LATER_NS)
    assert (again.seen, again.missing, again.unchanged) == ([], [], 2)
    (tmp_path / "top/d/x").unlink()
    assert [row.path for row in scan(top, rows, LATER_NS).missing] == [b"d/x"]
    top.close()


def test_a_fresh_file_is_looked_at_again(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "x").write_bytes(b"1")
    now_ns = time.time_ns()
    [seen] = scan(disk, {}, now_ns).seen
    row = row_of(b"x", settled(seen.stat, now_ns), b"f", None)
    assert row.ctime_ns == RACY
    assert len(scan(disk, {b"x": row}, now_ns).seen) == 1
    old = row_of(b"x", settled(seen.stat, now_ns + 2 * RACY_NS), b"f", None)
    assert scan(disk, {b"x": old}, now_ns).seen == []


def test_what_cannot_be_looked_at_is_busy_and_not_deleted(tmp_path: Path) -> None:
    class Blind(Disk):
        def directory(self, path: bytes) -> int:
            if path == b"d":
                raise PermissionError(13, "Permission denied")
            return super().directory(path)

    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_bytes(b"1")
    disk = Blind(os.fsencode(tmp_path))
    stat_ = Stat(FILE, 0o644, 1, 1, 1, 1)
    rows = {path: row_of(path, stat_, b"f", None) for path in (b"d/x", b"dx")}
    found = scan(disk, rows, LATER_NS)
    assert [row.path for row in found.missing] == [b"dx"]
    assert found.busy == {b"d"}
    assert is_busy(b"d/x/y", found.busy)
    assert not is_busy(b"dx", found.busy)
    disk.close()


@pytest.mark.parametrize("before", [{b"d": 99}, {b"d": 99, b"gone": 98}])
def test_an_unmounted_directory_is_busy_and_not_deleted(
    tmp_path: Path, disk: Disk, before: dict[bytes, int]
) -> None:
    """What is left is an empty mount point, or none; what was seen below it waits as well."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/below").write_bytes(b"under the mount point")
    stat_ = Stat(FILE, 0o644, 1, 1, 1, 1)
    rows = {path: row_of(path, stat_, b"f", None) for path in (b"d/x", b"dx", b"gone/x")}
    found = scan(disk, rows, LATER_NS, mounts=before)
    assert {row.path for row in found.missing} == {b"dx", b"gone/x"} - {p + b"/x" for p in before}
    assert found.busy == set(before)
    assert found.mounts == before, "still awaited"
    assert found.seen == []


def test_a_mount_that_is_gone_with_nothing_below_is_forgotten(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "d").mkdir()
    found = scan(disk, {}, LATER_NS, mounts={b"d": 99})
    assert (found.mounts, found.busy) == ({}, set())
    assert [seen.path for seen in found.seen] == [b"d"]


def _scan_of_a_mount(
    monkeypatch: pytest.MonkeyPatch, disk: Disk, rows: list[bytes], before: dict[bytes, int]
) -> Scan:
    """A scan that finds `d` on a filesystem of its own."""
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        info = real(fd)
        if fd != disk.directory(b""):
            return info
        return os.stat_result((*info[:2], info.st_dev + 7, *info[3:]))

    monkeypatch.setattr("holdfast.device.folder.scan.os.fstat", fstat)
    stat_ = Stat(FILE, 0o644, 1, 1, 1, 1)
    return scan(disk, {p: row_of(p, stat_, b"f", None) for p in rows}, LATER_NS, mounts=before)


@pytest.mark.parametrize("before", [{}, {b"d": 99}])
def test_another_disk_mounted_in_the_folder_hides_nothing_away(
    tmp_path: Path, disk: Disk, before: dict[bytes, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/other").write_bytes(b"1")
    found = _scan_of_a_mount(monkeypatch, disk, [b"d/x", b"x"], before)
    assert [row.path for row in found.missing] == [b"x"]
    assert (found.busy, found.mounts, found.seen) == ({b"d"}, before, [])


def test_a_mount_under_another_number_is_believed_when_all_is_there(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of filesystems change when a machine starts again."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_bytes(b"1")
    number = (tmp_path / "d").stat().st_dev
    found = _scan_of_a_mount(monkeypatch, disk, [b"d/x"], {b"d": number + 1})
    assert (found.busy, found.missing, found.mounts) == (set(), [], {b"d": number})
    found = _scan_of_a_mount(monkeypatch, disk, [b"d/x", b"d/y"], {b"d": number + 1})
    assert (found.busy, found.missing, found.mounts) == ({b"d/y"}, [], {b"d": number + 1})
    assert {seen.path for seen in found.seen} == {b"d", b"d/x"}


def test_modes_are_permissions_only(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "x").chmod(0o4755)
    [seen] = scan(disk, {}, LATER_NS).seen
    assert seen.stat.mode == 0o755
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o4755


# --- the index -----------------------------------------------------------------------------------
def test_the_index_keeps_what_it_is_told(index: FolderIndex) -> None:
    stat_ = Stat(FILE, 0o644, 5, -1, 2**62, 2**63 - 1)
    rows = [row_of(b"\xff%d" % i, stat_, b"f" * 33, (b"o" * 32, i)) for i in range(200)]
    index.set_placing(Placing(row.path, row.identity, -1) for row in rows[:3])
    assert set(index.placing()) == {row.path for row in rows[:3]}
    index.update(rows)
    assert index.rows() == {row.path: row for row in rows}
    assert index.placing() == {}, "what is in step is not on its way any more"
    directory = row_of(b"d", Stat(DIRECTORY, 0o755, 0, 0, 0, 1), b"d", None)
    index.update([directory], [row.path for row in rows])
    assert index.rows() == {b"d": directory}
    assert index.rows()[b"d"].version is None


def test_chunks_and_extents(index: FolderIndex) -> None:
    pieces = [Piece(b"%032d" % (i // 9), i, i + 1, i + 2, 1, b"h%031d" % i) for i in range(300)]
    assert not index.has_chunks()
    index.add_chunks(pieces)
    index.add_chunks(pieces[:5])
    found = index.chunks([piece.hash for piece in pieces] + [b"?" * 32])
    assert found == {piece.hash: piece for piece in pieces}
    index.add_extents((b"big", i, b"h%031d" % i, 1) for i in range(100))
    index.copy_extents(b"big", b".holdfast~/x")
    index.move_extents(b".holdfast~/x", b"copy")
    index.add_extents([(b".holdfast~/y", 0, b"y" * 32, 1)])
    index.forget_staged()
    assert index.extents([b"y" * 32]) == {}
    index.update(gone=[b"big"])
    assert index.extents([b"h%031d" % 7]) == {b"h%031d" % 7: (b"copy", 7)}


def test_an_index_of_another_time_is_started_over(tmp_path: Path, index: FolderIndex) -> None:
    index.set_meta("key", b"value")
    index.close()
    path = tmp_path / "state" / "index"
    again = FolderIndex(path)
    assert again.meta("key") == b"value"
    again._db.execute("PRAGMA user_version=99")
    again.close()
    assert FolderIndex(path).meta("key") is None
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(OperationFault):
        FolderIndex(path)
