"""Finding the processes of a network from outside: command lines and sockets under /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from holdfast.rim.files import read_file
from holdfast.rim.process import descendants

_ESTABLISHED: Final = "01"
_STATE, _INODE, _START = 3, 9, 19
"""Fields of a /proc/net/tcp row, and of /proc/<pid>/stat from the state on."""


def command_of(pid: int) -> list[str]:
    """The words of a process's command line; none for one that is gone."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return data.decode(errors="replace").rstrip("\0").split("\0")


def find_process(*words: str) -> int | None:
    """The first process below this one with all of `words` in its command line."""
    for pid in descendants(os.getpid()):
        if set(words) <= set(command_of(pid)):
            return pid
    return None


def age_s(pid: int) -> float | None:
    """Real seconds since a process was started; None for one that is gone."""
    stat, up = read_file(Path(f"/proc/{pid}/stat")), read_file(Path("/proc/uptime"))
    if not stat or not up:
        return None
    started = int(stat.decode(errors="replace").rpartition(")")[2].split()[_START])
    return float(up.split()[0]) - started / os.sysconf("SC_CLK_TCK")


def connected(pid: int) -> bool:
    """Whether a process holds an established TCP connection."""
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    open_now = {
        f"socket:[{fields[_INODE]}]"
        for fields in map(str.split, rows)
        if fields[_STATE] == _ESTABLISHED
    }
    try:
        held = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    except OSError:
        return False
    return bool(open_now & held)
