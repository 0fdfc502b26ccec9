"""Connections of a child are cut one by one, and no other is touched."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from holdfast.rim.sockets import connections, cut

CHILD = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
one, _ = server.accept()
two, _ = server.accept()
print("ready", flush=True)
sys.stdin.read()
"""


def test_one_of_two_connections_is_cut() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        where = ("127.0.0.1", port)
        with socket.create_connection(where, 5) as one, socket.create_connection(where, 5) as two:
            assert child.stdout.readline() == b"ready\n"
            mine = one.getsockname()[1]
            seen = [c for c in connections(child.pid) if c.local_port == port]
            assert {c.remote_port for c in seen} == {mine, two.getsockname()[1]}
            count = cut(child.pid, lambda c: c.local_port == port and c.remote_port == mine)
            assert count == 1
            assert one.recv(1) == b""
            two.settimeout(0.2)
            with pytest.raises(TimeoutError):
                two.recv(1)
        child.kill()
