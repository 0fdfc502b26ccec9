"""Podman and buildah with a store of their own, where cgroups are of the first version too."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


class Engine:
    """Images and containers below `home`; `close` removes all of them."""

    def __init__(self, where: str = "/tmp") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hf-", dir=where))  # podman wants it short
        (self.home / "containers.conf").write_text(_CONTAINERS)
        self.env = {**os.environ, "CONTAINERS_CONF": str(self.home / "containers.conf")}
        store = [f"--root={self.home / 's'}", f"--runroot={self.home / 'r'}"]
        self.store = [*store, "--storage-driver=vfs"]

    def podman(self, *words: str) -> str:
        return self._run("podman", *self.store, *words)

    def buildah(self, *words: str) -> str:
        return self._run("buildah", *self.store, *words)

    def refusal(self, *words: str) -> str:
        """What podman says against it; empty when it went well."""
        done = self._done("podman", *self.store, *words)
        return done.stderr.strip()[-200:] if done.returncode else ""

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time=0")
        shutil.rmtree(self.home, ignore_errors=True)

    def _run(self, *words: str) -> str:
        done = self._done(*words)
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
        return done.stdout

    def _done(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=self.env, capture_output=True, text=True, check=False)
