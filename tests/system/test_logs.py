"""Real services write one object a line, with the same keys, and no secret they were given."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.system.small_network import PYTHON, SmallNetwork, holdfast, until

pytestmark = pytest.mark.system
KEYS = {"at", "level", "service", "node", "event", "text"}


class Logged(SmallNetwork):
    """Its services write their logs to files of their own; `secrets` went through them."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.secrets: list[str] = []

    def start(self, directory: Path) -> None:
        words = ("hq", "serve") if directory == self.hq else ("node", "run")
        level = ("--log", "json", "--log-level", "debug")
        with (self.base / f"{directory.name}.json").open("ab") as log:
            self.processes[directory] = subprocess.Popen(
                [*PYTHON, *words, "--dir", str(directory), *level],
                stdout=subprocess.DEVNULL,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ,
            )

    def lines(self, directory: Path) -> list[dict[str, Any]]:
        """Every line, parsed; one that is none fails the test."""
        text = (self.base / f"{directory.name}.json").read_text()
        return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_every_service(tmp_path: Path) -> None:
    network = Logged(tmp_path)
    network.found()
    at = ("--dir", str(network.hq))
    try:
        network.secrets += [json.loads((network.hq / "admin.json").read_bytes())["key"]]
        spent = holdfast("hq", "token", "create", *at, "--role", "relay", "--region", "eu")
        network.secrets += [spent["token"], spent["hash"]]
        cell = ("--domain", "c1.hold.example", "--core-domain", "c1-core.hold.example")
        holdfast("access", "cell", "create", "c1", *cell, *at)
        member = holdfast("access", "member", "add", "--owner", "ann", *at)
        device = holdfast("access", "member", "device", member["id"], "--cell", "c1", *at)
        network.secrets += [member["id"], device["device"], device["token"]]
        holdfast("access", "member", "device", "0123456789abcdef", "--cell", "c1", *at, status=None)
        key = holdfast("hq", "operator", "add", "bob", *at)["key"]
        network.secrets += [key]
        network.stop(network.hq)  # nodes say that they miss it
        missed = {"node.heartbeat", "node.desired"}
        until(lambda: any(line["event"] in missed for line in network.lines(network.relay)))
        network.start(network.hq)
        until(lambda: holdfast("hq", "status", *at, status=None).get("leading", False))
    finally:
        network.stop_all()
    services = set()
    for directory in (network.hq, network.relay, network.replica):
        lines = network.lines(directory)
        assert lines
        for line in lines:
            assert set(line) - {"trace"} == KEYS, line
            assert line["event"].partition(".")[2], line
        services |= {line["service"] for line in lines}
        raw = (tmp_path / f"{directory.name}.json").read_text()
        for secret in network.secrets:
            assert secret not in raw
    assert services == {"hq", "node", "relay", "replica"}
    assert {line["node"] for line in network.lines(network.relay)} >= {"relay-eu-001"}
