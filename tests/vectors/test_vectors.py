"""The bytes on the wire are the bytes that were published (D1-D24, D9)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.crypto.blob import unseal
from holdfast.crypto.era import Era
from holdfast.errors import PeerFault

HERE = Path(__file__).parent


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vector_generator", HERE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.FILES))
def test_code_makes_the_published_bytes(name: str) -> None:
    assert GENERATOR.render(name) == (HERE / f"{name}.json").read_text()


def _cases(name: str) -> list[dict[str, Any]]:
    return json.loads((HERE / f"{name}.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", _cases("blobs"), ids=lambda case: case["name"])
def test_published_blobs_open(case: dict[str, Any]) -> None:
    era = Era(bytes.fromhex(case["era_secret"]), bytes.fromhex(case["network"]), case["era_number"])
    opened = unseal(era, case["class"], bytes.fromhex(case["blob"]))
    assert opened.payload == bytes.fromhex(case["payload"])
    assert (opened.index, opened.total, opened.born) == (
        case["index"],
        case["total"],
        case["born"],
    )


@pytest.mark.parametrize("case", _cases("blobs"), ids=lambda case: case["name"])
def test_a_flipped_bit_anywhere_is_refused(case: dict[str, Any]) -> None:
    era = Era(bytes.fromhex(case["era_secret"]), bytes.fromhex(case["network"]), case["era_number"])
    blob = bytes.fromhex(case["blob"])
    for position in range(0, len(blob), 7):
        bad = bytearray(blob)
        bad[position] ^= 0x40
        with pytest.raises(PeerFault):
            unseal(era, case["class"], bytes(bad))
