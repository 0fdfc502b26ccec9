"""Whose fault it was decides what happens next.

Four families, and nothing else crosses a module border:

* `PeerFault`: the other side broke the rules. Drop what it sent, count it, go on.
* `OperationFault`: the world failed (disk, network, time). `retryable` says whether waiting helps.
* `UsageError`: the operator asked for something that cannot be. The text says the next step.
* `AssertionError`: a bug in us. Crash, restart, recover; never caught.

The text of an error is what a person reads, so it lives with the raise and ends in a next step
where there is one. `exit_code` is the process status documented in OPERATIONS.md.
"""

from __future__ import annotations

from typing import Final

RETIRED_STATUS: Final = 10
"""Exit status of an agent that headquarters has retired: whoever started it must not again."""


class HoldfastError(Exception):
    """Base of every error a caller may handle. Never raised itself."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        assert type(self) is not HoldfastError, "raise one of the families"
        super().__init__(message)


class PeerFault(HoldfastError):
    """A peer sent bytes or made a claim that the protocol forbids.

    `code` is a short stable word from the protocol's error table (PROTOCOL.md, "Errors").
    """

    exit_code = 3

    def __init__(self, message: str, *, code: str = "malformed") -> None:
        super().__init__(message)
        self.code = code


class OperationFault(HoldfastError):
    """The world failed. `retryable` is true when the same call may succeed later."""

    exit_code = 4

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class UsageError(HoldfastError):
    """The operator's call cannot be carried out as asked; the text says what to do instead."""

    exit_code = 2
