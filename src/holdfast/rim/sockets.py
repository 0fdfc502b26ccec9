"""Cutting live connections of a child process, one by one.

A proxy keeps a connection whose peer was excluded a moment ago: certificates are looked at when
hands are shaken. So its parent shuts the socket itself: the kernel lists a process's TCP
connections with their inodes, `/proc/<pid>/fd` says which descriptors they are, and `pidfd_getfd`
gives the parent a copy to shut down. It needs the right to trace the child, which a parent of the
same user has; where the kernel refuses, the caller restarts the child, which cuts everybody.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

from holdfast.errors import OperationFault

_SYS_PIDFD_GETFD: Final = 438
"""The same number on every architecture (Linux 5.6)."""
_ESTABLISHED: Final = "01"
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Connection(msgspec.Struct, frozen=True):
    """One TCP connection of a process. Hosts are IP literals; IPv4 in IPv6 is shown as IPv4."""

    local_host: str
    local_port: int
    remote_host: str
    remote_port: int
    inode: str


def connections(pid: int) -> tuple[Connection, ...]:
    """The established TCP connections of the network namespace of `pid` (not only its own)."""
    found: list[Connection] = []
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _ESTABLISHED:
                found.append(Connection(*_end(fields[1]), *_end(fields[2]), fields[9]))
    return tuple(found)


def cut(pid: int, which: Callable[[Connection], bool]) -> int:
    """Shut down the connections of process `pid` for which `which` says so; how many.

    Raises OperationFault when the kernel does not allow it.
    """
    doomed = {item.inode for item in connections(pid) if which(item)}
    if not doomed:
        return 0
    count = 0
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        raise OperationFault(f"process {pid} is gone: {error.strerror}") from error
    try:
        for fd, inode in _sockets(pid):
            if inode in doomed:
                count += _shut(handle, fd)
    finally:
        os.close(handle)
    return count


def _sockets(pid: int) -> Iterator[tuple[int, str]]:
    """(descriptor, inode) of every socket of a process."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(name), target[8:-1]


def _shut(handle: int, fd: int) -> int:
    copy = _LIBC.syscall(_SYS_PIDFD_GETFD, handle, fd, 0)
    if copy < 0:
        error = ctypes.get_errno()
        if error == 9:  # EBADF: closed meanwhile
            return 0
        raise OperationFault(f"cannot reach a child's sockets: {os.strerror(error)}")
    with socket.socket(fileno=copy) as held:
        try:
            held.shutdown(socket.SHUT_RDWR)
        except OSError:
            return 0
    return 1


def _end(text: str) -> tuple[str, int]:
    """Host and port of `0100007F:1F90`: each 32-bit word is in the machine's byte order."""
    host, _, port = text.partition(":")
    raw = b"".join(bytes.fromhex(host[i : i + 8])[::-1] for i in range(0, len(host), 8))
    if len(raw) == 4:
        return str(IPv4Address(raw)), int(port, 16)
    address = IPv6Address(raw)
    return str(address.ipv4_mapped or address), int(port, 16)
