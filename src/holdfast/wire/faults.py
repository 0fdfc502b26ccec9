"""The protocol's error codes: the HTTP status each travels with, and what a caller makes of it.

A code in `RETRYABLE` is the world's doing and passes; every other says that the request itself
will not do, and the same bytes will be refused again.
"""

from __future__ import annotations

from typing import Final

from holdfast.errors import OperationFault, PeerFault
from holdfast.wire.pool import ErrorReply

STATUS: Final = {
    "malformed": 400,
    "version": 400,
    "signature": 400,
    "size": 400,
    "born": 400,
    "class": 400,
    "session": 401,
    "forbidden": 403,
    "ticket": 403,
    "slot": 404,
    "verb": 404,
    "incarnation": 409,
    "too-large": 413,
    "quota": 429,
    "rate": 429,
    "busy": 503,
    "full": 503,
    "read-only": 503,
    "draining": 503,
}
RETRYABLE: Final = frozenset({"rate", "busy", "full", "read-only", "draining"})


class Refusal(OperationFault):
    """A server cannot do it now. `code` is one of `RETRYABLE`; `retry_after_s` is its advice, 0
    when it gave none."""

    def __init__(self, message: str, *, code: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


def to_reply(error: PeerFault | OperationFault) -> tuple[int, ErrorReply]:
    """HTTP status and body for an error met while answering a request."""
    if isinstance(error, PeerFault):
        code = error.code if error.code in STATUS else "malformed"
        return STATUS[code], ErrorReply(code, str(error))
    code = getattr(error, "code", "busy")
    retry_after_s = getattr(error, "retry_after_s", 0.0)
    return STATUS[code], ErrorReply(code, str(error), retry_after_s)


def from_reply(reply: ErrorReply) -> PeerFault | Refusal:
    """The error that a server's refusal is to its caller."""
    text = f"the server refused: {reply.message[:200]} ({reply.code})"
    if reply.code in RETRYABLE:
        return Refusal(text, code=reply.code, retry_after_s=max(0.0, reply.retry_after_s))
    return PeerFault(text, code=reply.code)
