"""Free ports and subnets: nobody listens there, and two askers do not collide."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from holdfast.errors import OperationFault
from holdfast.rim import ports
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SeededEntropy, SystemEntropy


def test_a_taken_port_is_not_free() -> None:
    port = ports.free_port("127.0.0.1", SystemEntropy())
    assert ports.PORT_FIRST <= port < ports.PORT_LAST
    assert ports.can_bind("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not ports.can_bind("127.0.0.1", port)
        assert ports.can_bind("127.0.0.2", port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", port))
        assert not ports.can_bind("127.0.0.1", port)


def test_subnets_are_neighbours_in_which_nobody_listens() -> None:
    port = ports.free_port("127.0.0.1", SystemEntropy())
    first = ports.free_subnets(3, port, SeededEntropy(1))
    numbers = [int(subnet.split(".")[1]) for subnet in first]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert ports.SUBNET_FIRST <= numbers[0] < ports.SUBNET_LAST
    with socket.create_server((f"{first[1]}.0.3", port)):
        second = ports.free_subnets(3, port, SeededEntropy(1))
    assert not set(first) & set(second)


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "can_bind", lambda _host, _port: False)
    with pytest.raises(OperationFault, match="no free port"):
        ports.free_port("127.0.0.1", SystemEntropy())
    with pytest.raises(OperationFault, match="no free loopback subnet"):
        ports.free_subnets(3, 7443, SystemEntropy())


def test_somebody_answers_or_not() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await ports.answers(address, SystemClock())
        server.close()
        await server.wait_closed()
        assert not await ports.answers(address, SystemClock())

    asyncio.run(main())


def test_a_held_port_is_for_programs_of_this_user_that_share() -> None:
    held = ports.HeldPort("127.0.0.1", SystemEntropy())
    assert not ports.can_bind("127.0.0.1", held.port), "who does not share"
    with pytest.raises(OSError, match="in use"):  # nor another who would hold it
        socket.socket().bind(("127.0.0.1", held.port))
    with socket.socket() as ours, socket.socket() as caller:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            ours.setsockopt(socket.SOL_SOCKET, option, 1)
        ours.bind(("127.0.0.1", held.port))
        ours.listen()
        caller.connect(("127.0.0.1", held.port))
        ours.accept()[0].close()
    held.release()
    assert ports.can_bind("127.0.0.1", held.port)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as somebody else")
def test_a_held_port_is_nobody_elses() -> None:
    program = (
        "import socket, sys; s = socket.socket()\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
        "s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen()\n"
    )
    held = ports.HeldPort("127.0.0.1", SystemEntropy())
    command = (sys.executable, "-c", program, str(held.port))
    assert subprocess.run(command).returncode == 0, "as the same user"
    other = subprocess.run(command, user=65_534, capture_output=True, text=True)
    assert "Address already in use" in other.stderr
    held.release()
