"""How a long-running verb starts and ends."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from holdfast.cli.service import clock_of, host_port, start_log, stop_signal, until_stopped
from holdfast.errors import OperationFault, UsageError


def test_addresses_to_listen_on() -> None:
    assert host_port("127.0.0.1:0") == ("127.0.0.1", 0)
    assert host_port("[::1]:7443") == ("::1", 7443)
    for bad in ("", "7443", ":1", "host:", "host:x", "host:70000"):
        with pytest.raises(UsageError):
            host_port(bad)


def test_time_runs_forward_and_levels_have_names() -> None:
    assert clock_of(60).scale == 60
    for bad in (0.0, -1.0, 1e9):
        with pytest.raises(UsageError):
            clock_of(bad)
    with pytest.raises(UsageError, match="loud"):
        start_log("loud")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_work_and_the_handler_goes(number: int) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def work() -> int:
            try:
                asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
                await asyncio.Event().wait()
            finally:
                ended.set()
            return 1

        assert await until_stopped(work()) is None
        assert ended.is_set()

    handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, handler)  # who started us may have had it ignored
    try:
        asyncio.run(main())
        assert signal.getsignal(number) == handler
    finally:
        signal.signal(number, before)


def test_nohup_is_respected() -> None:
    async def main() -> None:
        async with stop_signal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
            assert not stop.is_set()

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGHUP, before)


def test_work_that_ends_or_fails_is_passed_on() -> None:
    async def fine() -> int:
        return 7

    async def bad() -> int:
        raise OperationFault("no")

    assert asyncio.run(until_stopped(fine())) == 7
    with pytest.raises(OperationFault):
        asyncio.run(until_stopped(bad()))
