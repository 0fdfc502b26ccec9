"""Xray itself takes the configuration that a subscription is."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest
from tests.logic.access.test_subscription import view

from holdfast.logic.access.render import Client, Format, skeleton
from holdfast.logic.access.render.notice import shown
from holdfast.logic.access.subscription import SubscriptionState, SubscriptionView
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port

pytestmark = pytest.mark.system
GONE = msgspec.structs.replace(view(), state=SubscriptionState.EXPIRED, endpoints=())


async def starts(directory: Path, config: object, port: int) -> bool:
    """Whether an Xray with this configuration opens its SOCKS port, rather than give up."""
    path = directory / "client.json"
    path.write_bytes(msgspec.json.encode(config))
    words = (sys.executable, "-m", "holdfast.access.xray_process", str(path))
    child = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while child.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return True
        return False
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@pytest.mark.parametrize("given", [view(), GONE], ids=["served", "notice"])
def test_xray_takes_it(tmp_path: Path, given: SubscriptionView) -> None:
    client = Client(Format.XRAY_JSON)
    config = msgspec.json.decode(skeleton(shown(given, client), client).text)
    port = config["inbounds"][0]["port"] = free_port("127.0.0.1", SystemEntropy())
    assert asyncio.run(asyncio.wait_for(starts(tmp_path, config, port), 60))


def test_control_xray_refuses_what_is_none(tmp_path: Path) -> None:
    client = Client(Format.XRAY_JSON)
    config = msgspec.json.decode(skeleton(shown(view(), client), client).text)
    port = config["inbounds"][0]["port"] = free_port("127.0.0.1", SystemEntropy())
    config["outbounds"][0]["streamSettings"]["tlsSettings"]["allowInsecure"] = "nonsense"
    assert not asyncio.run(asyncio.wait_for(starts(tmp_path, config, port), 60))
