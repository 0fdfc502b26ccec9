"""Child processes, and the two ways in which they follow their parent into death.

Theory of operation. A parent that is killed with SIGKILL can tidy nothing, so every child has two
independent reasons to end:

* the *lifeline*: its stdin is a pipe that only the parent holds open; at end of file the child
  stops (`parent_gone`, or `Parent.receive` returning None for a role that is spoken to);
* the kernel's parent-death signal (`PR_SET_PDEATHSIG`), which also ends a child that hangs. The
  kernel ties it to the parent's *thread*, so it is set only by a parent's main thread: a child of
  a worker thread would die with that thread.

A child stays in its parent's process group unless it gets its own session: killing the group of a
provider's daemon takes the agents and their roles at one stroke (D31).

A *framed* child speaks messages over stdin and stdout (`wire.control`): `u32 big-endian length |
MessagePack`. Its stray prints go to the log with its stderr.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from holdfast.errors import OperationFault, PeerFault
from holdfast.limits import MIB
from holdfast.rim.clock import Clock
from holdfast.wire.codec import pack, unpack

T = TypeVar("T")
MESSAGE_BYTES_MAX: Final = 16 * MIB
"""A Desired of 1,000 slots is about 2 MiB; eight times that is a runaway."""
LOG_BYTES_MAX: Final = 8 * MIB
"""A log larger than this is set aside, one generation kept."""
PARENT_VARIABLE: Final = "HOLDFAST_PARENT"
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _prctl_after_fork() -> None:
    """In the child, before exec: die when the parent's thread does."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def holdfast_command(*words: str) -> tuple[str, ...]:
    """The command line that runs a verb of this very installation."""
    return (sys.executable, "-m", "holdfast", *words)


async def read_message(reader: asyncio.StreamReader, kind: type[T]) -> T | None:
    """The next message; None at end of file. Raises PeerFault for anything that is not one."""
    try:
        head = await reader.readexactly(4)
        size = int.from_bytes(head, "big")
        if size > MESSAGE_BYTES_MAX:
            raise PeerFault(f"message of {size} bytes on a pipe", code="too-large")
        return unpack(kind, await reader.readexactly(size), bytes_max=MESSAGE_BYTES_MAX)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def read_first(kind: type[T]) -> T | None:
    """The parent's first message, before there is an event loop; None when it has gone. Nothing
    behind the message is read. Raises PeerFault."""
    size = int.from_bytes(_read_exactly(4), "big")
    if size > MESSAGE_BYTES_MAX:
        raise PeerFault(f"message of {size} bytes on a pipe", code="too-large")
    data = _read_exactly(size)
    return unpack(kind, data, bytes_max=MESSAGE_BYTES_MAX) if data else None


def _read_exactly(count: int) -> bytes:
    """That many bytes of stdin; fewer at its end."""
    data = b""
    while len(data) < count and (more := os.read(0, count - len(data))):
        data += more
    return data


async def write_message(writer: asyncio.StreamWriter, message: object) -> None:
    """Send one message. Raises OperationFault when the other side is gone."""
    data = pack(message)
    assert len(data) <= MESSAGE_BYTES_MAX, "a message we cannot be sent back"
    try:
        writer.write(len(data).to_bytes(4, "big") + data)
        await writer.drain()
    except (ConnectionError, RuntimeError) as error:
        raise OperationFault("the process at the other end of the pipe is gone") from error


class Child(Generic[T]):
    """A running child. `T` is the union of messages it may send, when it is framed."""

    def __init__(
        self, process: asyncio.subprocess.Process, kind: type[T] | None, log: Path | None
    ) -> None:
        self._process = process
        self._kind = kind
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def send(self, message: object) -> None:
        """Send one message. Raises OperationFault when the child is gone."""
        assert self._process.stdin is not None
        await write_message(self._process.stdin, message)

    async def receive(self) -> T | None:
        """The child's next message; None when it has closed its side."""
        assert self._process.stdout is not None
        assert self._kind is not None, "an unframed child has nothing to say"
        return await read_message(self._process.stdout, self._kind)

    async def wait(self) -> int:
        """Its exit status, negative for a signal."""
        return await self._process.wait()

    def kill(self) -> None:
        """SIGKILL it and everything below it."""
        if self.status is None:
            kill_tree(self.pid)

    async def stop(self, clock: Clock, grace_s: float) -> int:
        """Cut the lifeline, ask with SIGTERM, after `grace_s` real seconds kill the tree."""
        if self.status is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            _signal(self.pid, signal.SIGTERM)
        try:
            async with clock.real_timeout(grace_s):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()


async def spawn(
    command: Sequence[str],
    *,
    log: Path | None = None,
    kind: type[T] | None = None,
    own_session: bool = False,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Child[T]:
    """Start `command` as a child on a lifeline; framed when `kind` is given.

    What it prints goes to the end of `log`, or where ours goes. `own_session` makes it the leader
    of its own session and process group; `directory` is where it runs. Raises OperationFault when
    it cannot be started.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    die_with_parent: Callable[[], None] | None = _prctl_after_fork if main_thread else None
    variables = {**os.environ, **(environment or {}), PARENT_VARIABLE: str(os.getpid())}
    output: Any = None
    try:
        output = None if log is None else _open_log(log)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if kind is not None else output,
            stderr=output,
            env=variables,
            cwd=directory,
            start_new_session=own_session,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise OperationFault(f"cannot start {command[0]}: {error.strerror}") from error
    finally:
        if output is not None:
            output.close()
    return Child(process, kind, log)


def _open_log(log: Path) -> Any:
    """The log, opened for appending, set aside first when it has grown too large."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(log.name + ".1"))
    return log.open("ab")


def trim_log(log: Path) -> None:
    """Set a log that has grown too large aside while it is being written: copy, then empty it.

    Writers append, so they go on at the start. One that is missing is no error.
    """
    try:
        if log.stat().st_size > LOG_BYTES_MAX:
            shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)
    except FileNotFoundError:
        pass


class Parent(Generic[T]):
    """A framed child's view of the process that started it. `T`: what the parent may send."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: type[T]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._kind = kind
        self.spoken: Callable[[Any], Any] = lambda message: message
        """What a message becomes for a parent of another version."""

    @classmethod
    async def attach(cls, kind: type[T]) -> Parent[T]:
        """Take over stdin and stdout; later prints go to stderr. Once in a process."""
        fd_in, fd_out = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        reader = await _pipe_reader(fd_in)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(fd_out, "wb", 0)
        )
        return cls(reader, asyncio.StreamWriter(transport, protocol, None, loop), kind)

    async def receive(self) -> T | None:
        """The parent's next message; None when it is gone, and so should we be."""
        return await read_message(self._reader, self._kind)

    async def send(self, message: object) -> None:
        """Send one message. Raises OperationFault when the parent is gone."""
        await write_message(self._writer, self.spoken(message))


async def _pipe_reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    return reader


async def parent_gone() -> None:
    """Return when the parent that spawned us through `spawn` is gone.

    Waits for ever in a process that was started any other way: its stdin is not a lifeline.
    """
    if os.environ.get(PARENT_VARIABLE) != str(os.getppid()):
        await asyncio.Event().wait()
    reader = await _pipe_reader(os.dup(0))
    while await reader.read(4096):
        pass


def has_parent() -> bool:
    """Whether this process was started by `spawn` and its parent still lives."""
    return os.environ.get(PARENT_VARIABLE) == str(os.getppid())


def lead_group() -> int:
    """Make this process the leader of its own process group, if it is not; the group's id."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    return os.getpgrp()


def raise_descriptor_limit() -> None:
    """Let this process open as many files as its hard limit allows: the soft one is for programs
    that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def alive(pid: int) -> bool:
    """Whether a process of that id runs (a zombie does not)."""
    return _state(pid) not in {"", "Z", "X"}


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on: state, ppid, pgrp, session, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []


def descendants(pid: int) -> tuple[int, ...]:
    """The living processes below `pid`, children before grandchildren."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else []
        if fields and fields[0] not in {"Z", "X"}:
            below.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [pid]
    while queue:
        children = below.get(queue.pop(0), [])
        found += children
        queue += children
    return tuple(found)


def busy() -> float:
    """How busy this machine was in the last minute: 0 idle, 1 and more with a queue."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def cpu_s(pid: int) -> float:
    """CPU seconds that `pid` and everything below it have used so far; 0 for one that is gone."""
    total = 0.0
    for each in (pid, *descendants(pid)):
        fields = _stat(each)
        if len(fields) > 12:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory(pid: int) -> Iterator[bytes]:
    """The private writable memory of a process, region by region, as a debugger sees it.

    Nothing for a process that is gone or may not be traced.
    """
    try:
        with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
            regions = [line.split() for line in maps if " rw-p " in line]
        with open(f"/proc/{pid}/mem", "rb", 0) as file:
            for region in regions:
                start, end = (int(part, 16) for part in region[0].split("-"))
                try:
                    file.seek(start)
                    yield file.read(end - start)
                except (OSError, ValueError, OverflowError):
                    continue
    except OSError:
        return


def group_members(group: int) -> tuple[int, ...]:
    """Every living process of a process group."""
    members = []
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else []
        if fields and int(fields[2]) == group and fields[0] not in {"Z", "X"}:
            members.append(int(name))
    return tuple(sorted(members))


def kill_tree(pid: int) -> None:
    """SIGKILL `pid` and everything below it; one that is gone is no error."""
    for victim in (pid, *descendants(pid)):
        _signal(victim, signal.SIGKILL)


def kill_group(group: int) -> None:
    """SIGKILL every process of a group; one that is gone is no error."""
    assert group > 1, "never our own group or everybody"
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
