"""A headquarters and two nodes, set up by commands, each a process that a test may maltreat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port

PYTHON = (sys.executable, "-m", "holdfast")
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
START_S = 60.0


def holdfast(
    *words: str,
    status: int | None = 0,
    under: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one command with --json, under a wrapper if one is given; its last line."""
    command = [*under, *PYTHON, *words, "--json"]
    variables = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=variables)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"status": done.returncode}


def faked(offset: str) -> dict[str, str]:
    """Variables under which a process's wall clock is `offset` off (libfaketime), elapsed time not
    touched."""
    assert FAKETIME.exists(), "bin/test installs the Debian package faketime"
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}


CAGE = ("setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
"""What of the units' sandbox can be had without systemd: no capability, and none to be gained."""


def steered(clock: Path) -> dict[str, str]:
    """The same, for a clock that is stepped while the process runs: by writing to `clock`."""
    variables = faked("")
    del variables["FAKETIME"]
    return {**variables, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}


def until(holds: Callable[[], bool], real_s: float = START_S) -> None:
    """Wait for something of other processes."""
    ends = time.monotonic() + real_s
    while not holds():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.1)


class SmallNetwork:
    """`hq`, `relay` and `replica` are directories below `base`."""

    def __init__(self, base: Path, time_scale: float = 1.0) -> None:
        self.base = base
        self.scale = f"--time-scale={time_scale:g}"
        self.hq = base / "hq"
        self.relay, self.replica = base / "relay", base / "replica"
        self.processes: dict[Path, subprocess.Popen[bytes]] = {}
        self.env: dict[str, str] = {}
        """Variables of the processes that are started next."""
        self.under: tuple[str, ...] = ()
        """What they are started by."""

    def found(self) -> None:
        """Root, headquarters, two nodes: all serve when this returns."""
        (self.base / "passphrase").write_text("six words that nobody guesses here\n")
        secret = ("--passphrase-file", str(self.base / "passphrase"))
        root, entropy = str(self.base / "root"), SystemEntropy()
        holdfast("root", "create", "--out", root, *secret)
        api, dns, *self.ports = (free_port("127.0.0.1", entropy) for _ in range(4))
        made = holdfast(
            *("hq", "init", "--dir", str(self.hq), "--root-cert", f"{root}/root.crt"),
            *("--listen", f"127.0.0.1:{api}", "--dns-listen", f"127.0.0.1:{dns}", self.scale),
        )
        signed = ("--hq-request", made["request"], "--out", str(self.base / "hq.crt"))
        holdfast("root", "issue-intermediate", "--root", root, *secret, *signed)
        holdfast("hq", "install", str(self.base / "hq.crt"), "--dir", str(self.hq))
        self.start(self.hq)
        until((self.hq / "admin.json").exists)
        until(lambda: holdfast("hq", "status", "--dir", str(self.hq))["leading"])
        for directory, port in zip((self.relay, self.replica), self.ports, strict=True):
            token = holdfast(
                *("hq", "token", "create", "--dir", str(self.hq), "--role", directory.name),
                *("--region", "eu", "--owner", "ann", "--provider", "alder"),
            )
            listen = f"127.0.0.1:{port}"
            where = ("--dir", str(directory), "--listen", listen)
            holdfast("node", "join", token["token"], *where)
            self.start(directory)
        for directory in (self.relay, self.replica):
            until(lambda directory=directory: self.serves(directory))  # type: ignore[misc]

    def start(self, directory: Path) -> None:
        words = (
            ("hq", "serve", "--dir", str(directory))
            if directory == self.hq
            else ("node", "run", "--dir", str(directory), self.scale)
        )
        with (self.base / f"{directory.name}.log").open("ab") as log:
            self.processes[directory] = subprocess.Popen(
                [*self.under, *PYTHON, *words],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.env},
            )

    def serves(self, directory: Path) -> bool:
        """Whether an agent says that its role serves."""
        try:
            report = json.loads((directory / "status.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(report["phase"] == "serving")

    def stop(self, directory: Path) -> int:
        process = self.processes.pop(directory)
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def stop_all(self) -> None:
        for directory in list(self.processes):
            self.stop(directory)
