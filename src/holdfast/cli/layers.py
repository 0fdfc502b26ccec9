"""Which layer served what, for a person who recovers."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console

from holdfast.device.agent import Agent
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.vault.layers import Layer, Recovery


def layer_text(layer: dict[str, Any]) -> str:
    """One layer on one line."""
    who = ", ".join(layer["answered"]) or layer["why"] or "nobody answers"
    return f"{layer['layer']}: {layer['blobs']} blobs, {layer['bytes']} bytes ({who})"


async def walk_layers(runtime: DeviceRuntime) -> list[dict[str, Any]]:
    """Walk the layers, showing on the terminal what each gives."""
    console = Console(stderr=True, highlight=False)
    shown: dict[str, int] = {}

    def show(layer: Layer) -> None:
        if layer.blobs >= 2 * shown.get(layer.layer, 0) or layer.why:
            shown[layer.layer] = max(layer.blobs, 1)
            console.print(layer_text(msgspec.structs.asdict(layer)), soft_wrap=True)

    agent = Agent(runtime)
    try:
        found = await Recovery(runtime, agent, show).run()
    finally:
        await agent.stop()
    return [msgspec.structs.asdict(layer) for layer in found]
