"""Free ports and subnets: nobody listens there, and two askers do not collide."""

from __future__ import annotations

import asyncio
import socket

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
