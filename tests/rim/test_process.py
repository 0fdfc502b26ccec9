"""Children follow their parent into death, and speak in frames (D31)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from holdfast.errors import OperationFault, PeerFault
from holdfast.rim import process as rim
from holdfast.rim.clock import SystemClock
from holdfast.wire.control import Certificates, FromRole, Ready, Stop

CLOCK = SystemClock()

ECHO = """
import asyncio
from holdfast.rim.process import Parent
from holdfast.wire.control import Ready, Stop, ToRole

async def main():
    parent = await Parent.attach(ToRole)
    print("a stray print")
    while (message := await parent.receive()) is not None:
        await parent.send(Ready(addresses=(type(message).__name__,)))
        if isinstance(message, Stop):
            return
    raise SystemExit(7)

asyncio.run(main())
"""

SLEEPER = "import time; time.sleep(600)"

DEAF = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(600)"
)

MIDDLE = """
import asyncio, sys
from holdfast.rim.process import spawn

async def main():
    child = await spawn([sys.executable, "-c", %r])
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""

LIFELINE = """
import asyncio, ctypes, pathlib
from holdfast.rim.process import parent_gone

async def main():
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)  # without the kernel's help
    pathlib.Path(%r).touch()
    await parent_gone()

asyncio.run(main())
"""


def python(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


async def soon(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `true()`."""
    async with CLOCK.real_timeout(seconds):
        while not true():
            await CLOCK.sleep_real(0.01)


async def limited(work: Awaitable[object]) -> None:
    async with CLOCK.real_timeout(20):
        await work


def test_messages_travel_both_ways_and_prints_go_to_the_log(tmp_path: Path) -> None:
    async def main() -> None:
        log = tmp_path / "log"
        child = await rim.spawn(python(ECHO), log=log, kind=FromRole)
        for message in (Certificates(), Stop()):
            await child.send(message)
            assert await child.receive() == Ready((type(message).__name__,))
        assert await child.wait() == 0
        assert await child.receive() is None
        assert log.read_text() == "a stray print\n"

    asyncio.run(limited(main()))


def test_a_framed_child_sees_the_end_of_its_parent() -> None:
    async def main() -> None:
        child = await rim.spawn(python(ECHO), kind=FromRole)
        await child.send(Certificates())
        assert await child.receive() is not None
        assert child._process.stdin is not None
        child._process.stdin.close()
        assert await child.wait() == 7

    asyncio.run(limited(main()))


def test_garbage_on_the_pipe_is_the_peers_fault() -> None:
    async def main() -> None:
        for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc1\xc1", b"\x00\x00\x00\x01\x80"):
            text = f"import sys; sys.stdout.buffer.write({data!r}); sys.stdout.flush()"
            child = await rim.spawn(python(text), kind=FromRole)
            with pytest.raises(PeerFault):
                await child.receive()
            await child.wait()

    asyncio.run(limited(main()))


def test_sending_to_the_dead_is_an_operation_fault() -> None:
    async def main() -> None:
        child = await rim.spawn(python("pass"), kind=FromRole)
        await child.wait()
        await asyncio.sleep(0)
        with pytest.raises(OperationFault):
            await child.send(Stop())

    asyncio.run(limited(main()))


def test_a_command_that_is_not_there_is_an_operation_fault(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(OperationFault, match="cannot start"):
            await rim.spawn([str(tmp_path / "nothing")])

    asyncio.run(limited(main()))


def test_stop_asks_and_then_kills() -> None:
    async def main() -> None:
        polite = await rim.spawn(python(SLEEPER))
        assert await polite.stop(CLOCK, 10) == -signal.SIGTERM
        deaf = await rim.spawn(python(DEAF), kind=FromRole)
        assert deaf._process.stdout is not None
        await deaf._process.stdout.readline()
        assert await deaf.stop(CLOCK, 0.2) == -signal.SIGKILL

    asyncio.run(limited(main()))


async def _grandchild(text: str, *, own_session: bool = False) -> tuple[rim.Child[FromRole], int]:
    child = await rim.spawn(python(MIDDLE % text), kind=FromRole, own_session=own_session)
    assert child._process.stdout is not None
    pid = int(await child._process.stdout.readline())
    assert rim.alive(pid)
    return child, pid


@pytest.mark.parametrize("kind", ["asleep", "deaf", "lifeline"])
def test_a_child_of_a_killed_parent_dies(kind: str, tmp_path: Path) -> None:
    """The kernel's signal ends one that hangs, the lifeline one that missed the signal."""

    async def main() -> None:
        ready = tmp_path / "ready"
        texts = {"asleep": SLEEPER, "deaf": DEAF, "lifeline": LIFELINE % str(ready)}
        child, pid = await _grandchild(texts[kind])
        await soon(lambda: kind != "lifeline" or ready.exists())
        os.kill(child.pid, signal.SIGKILL)
        await soon(lambda: not rim.alive(pid))
        await child.wait()

    asyncio.run(limited(main()))


def test_killing_the_group_takes_everybody(tmp_path: Path) -> None:
    async def main() -> None:
        child, pid = await _grandchild(SLEEPER, own_session=True)
        assert set(rim.group_members(child.pid)) == {child.pid, pid}
        assert os.getpgrp() != child.pid
        rim.kill_group(child.pid)
        assert await child.wait() == -signal.SIGKILL
        await soon(lambda: not rim.group_members(child.pid))

    asyncio.run(limited(main()))


def test_killing_the_tree_takes_grandchildren() -> None:
    async def main() -> None:
        child, pid = await _grandchild(SLEEPER)
        assert rim.descendants(child.pid) == (pid,)
        child.kill()
        await child.wait()
        await soon(lambda: not rim.alive(pid))

    asyncio.run(limited(main()))


def test_a_child_started_from_a_worker_thread_outlives_the_thread() -> None:
    """The kernel ties the parent-death signal to the thread: it must not be set there."""
    children: list[rim.Child[object]] = []
    pids: list[int] = []

    def work() -> None:
        async def main() -> None:
            child: rim.Child[object] = await rim.spawn(python(SLEEPER))
            pids.append(child.pid)
            children.append(child)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loops.append(loop)

    loops: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    try:
        assert rim.alive(pids[0])

        asyncio.run(CLOCK.sleep_real(0.1))
        assert rim.alive(pids[0])
    finally:
        rim.kill_tree(pids[0])
        loops[0].run_until_complete(children[0].wait())
        loops[0].close()


def test_a_large_log_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(rim, "LOG_BYTES_MAX", 10)
        log = tmp_path / "log"
        for text in ("first, and long enough", "second"):
            child: rim.Child[object] = await rim.spawn(python(f"print({text!r})"), log=log)
            await child.wait()
        assert log.read_text() == "second\n"
        assert (tmp_path / "log.1").read_text() == "first, and long enough\n"

    asyncio.run(limited(main()))


def test_a_log_that_grows_while_it_is_written_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rim, "LOG_BYTES_MAX", 10)
    log = tmp_path / "log"
    rim.trim_log(log)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first, and long enough\n")
        rim.trim_log(log)
        writer.write(b"second\n")
        rim.trim_log(log)
    assert log.read_bytes() == b"second\n"
    assert (tmp_path / "log.1").read_bytes() == b"first, and long enough\n"


def test_only_a_spawned_process_has_a_parent() -> None:
    async def main() -> None:
        text = "from holdfast.rim.process import has_parent; raise SystemExit(has_parent())"
        child: rim.Child[object] = await rim.spawn(python(text))
        assert await child.wait() == 1
        plain = await asyncio.create_subprocess_exec(*python(text))
        assert await plain.wait() == 0

    asyncio.run(limited(main()))
