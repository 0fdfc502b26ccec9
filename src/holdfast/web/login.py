"""A one-time login link, then a session in a cookie.

The link is printed in the terminal of whoever started Holdfast; its code works once and for ten
minutes. Codes and session tokens are known here only by their hash, live in memory alone, and die
with the process. Everything is timed in real seconds from the monotonic clock: a drill that
squeezes time must not lock its audience out, and a stepped wall clock must not let anyone in.

What it cannot do: a cookie belongs to a host, not to a port, so a program that listens on another
loopback port of the same machine, and that the same browser visits, is sent this cookie too. On a
machine shared with people one does not trust, sign out before visiting their pages.
"""

from __future__ import annotations

from urllib.parse import quote

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.limits import LOGIN_CODE_S, LOGIN_CODES_MAX, LOGIN_SESSION_S, LOGIN_SESSIONS_MAX
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy

CODE_BYTES = 20
SESSION_BYTES = 32


class _Ledger:
    """Secrets by hash, each with the time at which it ends; the oldest goes when it is full."""

    def __init__(self, most: int) -> None:
        self._ends: dict[bytes, float] = {}
        self._most = most

    def add(self, secret: str, ends: float) -> None:
        while len(self._ends) >= self._most:
            del self._ends[next(iter(self._ends))]
        self._ends[hash_bytes(secret.encode())] = ends

    def holds(self, secret: str, now: float) -> bool:
        """Whether `secret` is known and has not ended at `now`."""
        key = hash_bytes(secret.encode())
        if self._ends.get(key, now) > now:
            return True
        self._ends.pop(key, None)
        return False

    def drop(self, secret: str) -> None:
        self._ends.pop(hash_bytes(secret.encode()), None)


class Login:
    """Issues links, turns a code into a session once, and counts what it refuses."""

    def __init__(self, clock: Clock, entropy: Entropy, *, command: str = "") -> None:
        """`command` is what a person types to get another link; pages quote it."""
        self._clock = clock
        self._entropy = entropy
        self._codes = _Ledger(LOGIN_CODES_MAX)
        self._sessions = _Ledger(LOGIN_SESSIONS_MAX)
        self.command = command
        self.entered = 0
        self.refused = 0

    def _now(self) -> float:
        return self._clock.elapsed() / self._clock.scale

    def link(self, base_url: str) -> str:
        """A new login link under `base_url` (`http://127.0.0.1:8800`)."""
        code = base32(self._entropy.bytes(CODE_BYTES))
        self._codes.add(code, self._now() + LOGIN_CODE_S)
        return f"{base_url.rstrip('/')}/login?code={quote(code)}"

    def enter(self, code: str) -> str | None:
        """Burn `code` and return a session token; None, counted, when it is wrong or spent."""
        if not self._codes.holds(code, self._now()):
            self.refused += 1
            return None
        self._codes.drop(code)
        token = base32(self._entropy.bytes(SESSION_BYTES))
        self._sessions.add(token, self._now() + LOGIN_SESSION_S)
        self.entered += 1
        return token

    def holds(self, token: str) -> bool:
        """Whether `token` is a live session."""
        return self._sessions.holds(token, self._now())

    def leave(self, token: str) -> None:
        """End a session; nothing happens when there is none."""
        self._sessions.drop(token)
