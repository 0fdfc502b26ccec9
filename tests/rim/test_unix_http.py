"""One GET over a Unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from holdfast.errors import OperationFault
from holdfast.rim.clock import SystemClock
from holdfast.rim.unix_http import get

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
REFUSED = b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n"


def answered(path: Path, answer: bytes) -> bytes:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> bytes:
        server = await asyncio.start_unix_server(serve, str(path))
        try:
            return await get(str(path), "/stats", SystemClock())
        finally:
            server.close()

    return asyncio.run(main())


def test_a_body_in_chunks(tmp_path: Path) -> None:
    assert answered(tmp_path / "s", CHUNKED) == b"abcde"


@pytest.mark.parametrize("answer", [REFUSED, b"nonsense\r\n\r\n", b""])
def test_anything_else_is_a_fault(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(OperationFault):
        answered(tmp_path / "s", answer)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OperationFault):
        asyncio.run(get(str(tmp_path / "s"), "/stats", SystemClock()))
