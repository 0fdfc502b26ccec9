"""What a verb says: text for people, one JSON object as the last line for programs.

Exit codes, the whole table:

| code | meaning                                                        |
|------|----------------------------------------------------------------|
| 0    | done                                                           |
| 1    | done, and the answer is no (a check that failed, a bad verdict)|
| 2    | usage: the call cannot be carried out as asked                 |
| 3    | a peer broke the protocol                                      |
| 4    | the world failed: disk, network, a process, time               |
| 10   | this node was retired by headquarters: do not start it again   |
| 70   | a bug in Holdfast, with a traceback                            |
| 130  | interrupted                                                    |
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.cli.provenance import commit
from holdfast.errors import HoldfastError, OperationFault, PeerFault

if TYPE_CHECKING:
    from logging import Logger

EXIT_OK: Final = 0
EXIT_NO: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130


def emit(record: object, *, as_json: bool, text: str = "") -> None:
    """Print `text` for a person, or `record` (a struct or a dict) as one JSON line.

    The line also names the commit that made it and the seed, null where nothing was drawn.
    """
    if as_json:
        line = msgspec.to_builtins(record, enc_hook=str) or {}
        line = {**line, "commit": commit(), "seed": line.get("seed")}
        print(msgspec.json.encode(line).decode(), flush=True)
    elif text:
        print(text, flush=True)


def next_step(error: HoldfastError) -> str:
    """What to do about `error`: what its text says after the first `; `, or its family's advice."""
    _, separator, advice = str(error).partition("; ")
    if separator:
        return advice
    if isinstance(error, PeerFault):
        return "check that both sides run the same version and belong to the same network"
    if isinstance(error, OperationFault):
        return "try again" if error.retryable else "look at the log, then repair what it names"
    return "see --help"


def service_log() -> Logger | None:
    """The log of this process where it is a service that writes JSON. Others never import it, so
    that `--help` does not pay for it."""
    if "holdfast.rim.log" not in sys.modules:
        return None
    from holdfast.rim.log import structured

    return structured("holdfast.cli")


def emit_error(error: HoldfastError, *, as_json: bool) -> None:
    """One line on stderr (in the log's form, for a service), or one JSON object {error, message,
    next} on stdout."""
    message = " ".join(str(error).split())
    if as_json:
        kind = error.code if isinstance(error, PeerFault) else type(error).__name__
        record: dict[str, Any] = {"error": kind, "message": message, "next": next_step(error)}
        emit(record, as_json=True)
    elif (log := service_log()) is not None:
        log.error("%s", message)
    else:
        print(f"holdfast: {message}", file=sys.stderr, flush=True)
