"""The document describes the port, and the port withstands what the document allows."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import Operator, run

from holdfast.hq.main import Headquarters

pytestmark = pytest.mark.system


async def document(operator: Operator) -> tuple[bytes, dict[str, Any]]:
    status, data = await operator.client.exchange("GET", "/admin/v1/openapi.json", None)
    assert status == 200
    return data, msgspec.json.decode(data)


def test_every_reference_leads_somewhere(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        data, found = await document(operator)
        names = set(found["components"]["schemas"])
        wanted = set(re.findall(rb'"#/components/schemas/([^"]+)"', data))
        assert {name.decode() for name in wanted} <= names
        assert "/admin/v1/pending/{id}/agree" in found["paths"]
        revoke = found["paths"]["/admin/v1/revoke"]["post"]
        assert revoke["description"] == "Roles: operator, owner"
        assert "202" in revoke["responses"]

    run(scenario, tmp_path)


@pytest.mark.parametrize(
    "examples", [2, pytest.param(300, marks=pytest.mark.campaign)], ids=lambda n: f"{n}-a-verb"
)
def test_no_case_breaks_it(tmp_path: Path, examples: int) -> None:
    """Cases that fit the document and cases that do not: refused at most, never a server error."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        data, _ = await document(operator)
        schema = tmp_path / "openapi.json"
        schema.write_bytes(data)
        key = hq.home.admin().key
        words = [Path(sys.executable).with_name("schemathesis"), "run", schema]
        words += [f"--url=http://{hq.admin_address}", f"--header=Authorization: Bearer {key}"]
        words += ["--checks=not_a_server_error", f"--max-examples={examples}", "--seed=1"]
        words += ["--phases=fuzzing", "--mode=all", "--no-color", "--suppress-health-check=all"]
        done = await asyncio.to_thread(
            subprocess.run, list(map(str, words)), capture_output=True, text=True, cwd=tmp_path
        )
        print(done.stdout[-600:])
        assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]

    run(scenario, tmp_path, wait_s=60.0 * examples)
