"""The command `holdfast`: mounts the verbs and is the last border for errors.

Sub-commands are named here and imported only when they are called, so that `--help` and a typo
cost no import of a service; services are called past the parser (`cli.plain`). A sub-command is a
cyclopts `App` called `app` in its module, with the name under which it is mounted; a plain verb is
a function. Verbs raise `HoldfastError`s, which become one line and an exit code here (`cli.output`
has the table).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from holdfast import __version__
from holdfast.cli.output import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, emit, emit_error, service_log
from holdfast.cli.plain import plain_call
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    import cyclopts

GROUPS: Final = ("Start here", "Devices", "Operators", "Machinery")

COMMANDS: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("up", "holdfast.cli.up:up", GROUPS[0], "Run a whole network on this machine."),
    ("down", "holdfast.cli.up:down", GROUPS[0], "Stop the network that `up` started."),
    ("tour", "holdfast.cli.tour.command:tour", GROUPS[0], "Watch it lose a provider and heal."),
    ("device", "holdfast.cli.device:app", GROUPS[1], "This machine as a device of a person."),
    ("carry", "holdfast.cli.carry:app", GROUPS[1], "Copies on your devices and friends' devices."),
    ("friend", "holdfast.cli.friend:app", GROUPS[1], "People you met: pair, list, unpair."),
    ("folder", "holdfast.cli.folder:app", GROUPS[1], "Shared folders: add, invite, join, sync."),
    ("group", "holdfast.cli.group:app", GROUPS[1], "Who is in what."),
    ("hq", "holdfast.cli.hq:app", GROUPS[2], "Headquarters: set up, serve, look inside."),
    ("root", "holdfast.cli.root:app", GROUPS[2], "The network root, kept off headquarters."),
    ("node", "holdfast.cli.node:app", GROUPS[2], "A server: join a network, run, leave."),
    ("service", "holdfast.cli.systemd:app", GROUPS[2], "Run it under systemd, sandboxed."),
    ("doctor", "holdfast.cli.doctor.command:doctor", GROUPS[2], "What ails it, and what to do."),
    ("uninstall", "holdfast.cli.uninstall:uninstall", GROUPS[2], "Take it off this machine."),
    ("relay", "holdfast.cli.relay:app", GROUPS[3], "The relay and replica role."),
    ("access", "holdfast.cli.access:app", GROUPS[2], "Cells, members, devices, exit policies."),
    ("bot", "holdfast.cli.bot:app", GROUPS[2], "A Telegram bot for members and operators."),
    ("provider", "holdfast.cli.provider:app", GROUPS[3], "A hosting provider made of processes."),
    ("drill", "holdfast.cli.drill:app", GROUPS[3], "Faults and malice, judged from outside."),
    ("sim", "holdfast.cli.sim:app", GROUPS[3], "The whole fleet in simulated time, and its bugs."),
    ("fuzz", "holdfast.cli.fuzz:fuzz", GROUPS[3], "Feed bad input to every decoder."),
    ("bench", "holdfast.cli.bench:app", GROUPS[3], "How fast it is, beside what others use."),
)
"""(name, where it lives, group, one line of help)."""


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the completion script of a shell.

    Parameters
    ----------
    shell
        Load it with `eval "$(holdfast completion bash)"`, or the like for zsh and fish.
    """
    emit(None, as_json=False, text=build().generate_completion(prog_name="holdfast", shell=shell))


def version(*, json: bool = False) -> None:
    """Print the version.

    Parameters
    ----------
    json
        One JSON object instead of text.
    """
    emit({"version": __version__}, as_json=json, text=f"holdfast {__version__}")


def build() -> cyclopts.App:
    """The root application with every verb mounted, none imported."""
    import cyclopts

    app = cyclopts.App(
        name="holdfast",
        help="A network run together by people who trust each other only in part.",
        help_format="plaintext",
        version=__version__,
        suppress_keyboard_interrupt=False,
    )
    groups = {name: cyclopts.Group(name, sort_key=index) for index, name in enumerate(GROUPS)}
    for name, path, group, text in COMMANDS:
        app.command(path, name=name, group=groups[group], help=text)
    app.command(completion, group=groups[GROUPS[3]])
    app.command(version, group=groups[GROUPS[3]])
    return app


def run(words: Sequence[str]) -> int:
    """Carry out one command line and return its exit status."""
    as_json = "--json" in words
    try:
        outcome = call_line(words)
    except HoldfastError as error:
        emit_error(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        if (log := service_log()) is not None:
            log.critical("a bug ended this process", exc_info=error)
        else:
            traceback.print_exc()
        if as_json:
            advice = "report this with the traceback above"
            emit({"error": "bug", "message": repr(error), "next": advice}, as_json=True)
        return EXIT_BUG
    return outcome if isinstance(outcome, int) else EXIT_OK


def call_line(words: Sequence[str]) -> Any:
    """Carry out one command line for what it returns. Raises HoldfastErrors; what the parser says
    of a bad line is a UsageError."""
    if (call := plain_call(words)) is not None:
        return call()
    import cyclopts

    _check_first_word(words)
    try:
        return build()(
            list(words),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        message = " ".join(str(error).split())
        message = message.partition(" Available commands:")[0].rstrip(".")  # it is cut short there
        verb = " ".join(("holdfast", *(error.command_chain or ())))
        raise UsageError(f"{message}; see {verb} --help") from error


def _check_first_word(words: Sequence[str]) -> None:
    """Refuse an unknown verb before cyclopts does, which would import every module to say so."""
    known = [name for name, *_ in COMMANDS] + ["completion", "version"]
    if not words or words[0].startswith("-") or words[0] in known:
        return
    import difflib

    near = difflib.get_close_matches(words[0], known, n=1)
    advice = f"did you mean {near[0]}?" if near else "see holdfast --help"
    raise UsageError(f"no verb called {words[0]!r}; {advice}")


def main() -> None:
    """Entry point of the console script and of `python -m holdfast`."""
    sys.exit(run(sys.argv[1:]))
