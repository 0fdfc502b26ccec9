"""A real name server on loopback to publish to: Knot DNS, with one zone and one TSIG key."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any, Final

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock
from holdfast.rim.dns.access import Access
from holdfast.rim.entropy import Entropy
from holdfast.rim.ports import answers, free_port
from holdfast.rim.process import Child, spawn

HOST: Final = "127.0.0.1"
KEY: Final = "holdfast-hq."
KEY_FILE: Final = "tsig.key"
INSTALL: Final = "apt install knot"
_START_S: Final = 20.0
_STOP_S: Final = 10.0
_CONFIG: Final = """\
server:
    rundir: "{home}"
    listen: {host}@{port}
log:
  - target: stderr
    any: warning
database:
    storage: "{home}/db"
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: headquarters
    key: {key}
    action: [update, transfer]
zone:
  - domain: {domain}
    storage: "{home}"
    file: zone
    acl: headquarters
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
"""
_ZONE: Final = """\
@ 60 SOA ns1 hostmaster 1 60 60 604800 10
@ 60 NS ns1
ns1 60 A 127.0.0.1
www 60 A 127.0.0.9
"""
"""`www` is somebody else's: publishing must leave it alone."""


def knot_binary() -> str | None:
    """Where Knot's server is, if anywhere."""
    return shutil.which("knotd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")


class Knot:
    """One server in one directory. `start`, then publish to `access`, then `stop`."""

    def __init__(self, home: Path, domain: str, clock: Clock, entropy: Entropy) -> None:
        self._home = home
        self._clock = clock
        self.port = free_port(HOST, entropy)
        self.access = Access(f"{HOST}:{self.port}", KEY, KEY_FILE)
        self.secret = base64.b64encode(entropy.bytes(32)).decode()
        self._child: Child[Any] | None = None
        (home / "db").mkdir(parents=True)
        (home / "zone").write_text(_ZONE)
        (home / KEY_FILE).write_text(self.secret + "\n")
        text = _CONFIG.format(
            home=home, host=HOST, port=self.port, key=KEY, secret=self.secret, domain=domain
        )
        (home / "knot.conf").write_text(text)

    async def start(self) -> None:
        """Raises OperationFault when it is not installed or does not come up."""
        binary = knot_binary()
        if binary is None:
            raise OperationFault(f"knotd is not installed: {INSTALL}", retryable=False)
        log = self._home / "knot.log"
        words = (binary, "-c", str(self._home / "knot.conf"))
        self._child = await spawn(words, log=log)
        try:
            async with self._clock.real_timeout(_START_S):
                while not await answers(self.access.server, self._clock):
                    await self._clock.sleep_real(0.05)
        except TimeoutError as error:
            raise OperationFault(f"knotd does not come up; see {log}", retryable=False) from error

    async def stop(self) -> None:
        """Stop it; its journal stays, and `start` goes on from there."""
        if self._child is not None:
            child, self._child = self._child, None
            await child.stop(self._clock, _STOP_S)
