"""`holdfast service`: headquarters, a node or a device as a systemd service.

Headquarters and nodes are system services that run as the owner of their directory, an ordinary
user without a single capability (but for port 53). Devices work on somebody's own files, so theirs
is a service of that person's user manager, where the kernel allows less sandboxing.

Everything that can be taken away is: `systemd-analyze security` calls the result OK. Not used, with
reasons: MemoryDenyWriteExecute stops pyOpenSSL, whose callbacks are written into memory and then
run; ProcSubset=pid hides the boot id, which the blob store asks for; DynamicUser moves
directories about and would break `--dir`.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import cyclopts
import msgspec
from cyclopts import Parameter

from holdfast.cli.homes import SERVICE_FILE, Kind, ServiceFile, kind_of
from holdfast.cli.output import emit
from holdfast.errors import RETIRED_STATUS, OperationFault, UsageError
from holdfast.hq.config import listen_address
from holdfast.hq.home import HqHome
from holdfast.node.home import Home
from holdfast.rim.files import write_file
from holdfast.rim.process import Child, spawn

SYSTEM_UNITS: Final = Path("/etc/systemd/system")
LOW_PORTS_END: Final = 1_024
_HOMES: Final = ("/home", "/root", "/run/user")

Dir = Annotated[Path, Parameter(name="--dir", help="Of a headquarters, a node or a device.")]
Json = Annotated[bool, Parameter(name="--json", help="One JSON object as the last line.")]

app = cyclopts.App(name="service", help_format="plaintext")

_SANDBOX: Final = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=sched_setaffinity
SystemCallErrorNumber=EPERM
UMask=0077
"""
"""Holds in a user manager as well: seccomp needs no right that a person lacks. The call
that is let in again is one of @resources: a relay places its own threads (ADR 0048)."""
_SYSTEM_SANDBOX: Final = """\
ProtectSystem=strict
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
PrivateTmp=yes
PrivateDevices=yes
RemoveIPC=yes
"""


@app.command
def unit(*, dir: Dir, json: Json = False) -> None:
    """Print the unit, and install nothing."""
    directory = dir.expanduser().absolute()
    kind = kind_of(directory)
    text = unit_text(kind, directory)
    emit({"name": unit_name(kind, directory), "unit": text}, as_json=json, text=text.rstrip())


@app.command
def install(
    *,
    dir: Dir,
    units: Path | None = None,
    start: bool = True,
    json: Json = False,
) -> None:
    """Write the unit and start it now and at every boot.

    `holdfast uninstall` takes it away again.

    Parameters
    ----------
    units
        Directory of units: the system's, or for a device that of your user manager.
    start
        Whether to enable and start it; otherwise it is only written.
    """
    directory = dir.expanduser().absolute()
    kind = kind_of(directory)
    where = units or units_directory(kind)
    name = unit_name(kind, directory)
    text = unit_text(kind, directory)
    if not where.is_dir():
        if kind is not Kind.DEVICE:
            raise UsageError(f"no directory {where}; is this machine run by systemd?")
        where.mkdir(parents=True)
    path = where / name
    written = ServiceFile(str(path), kind is Kind.DEVICE)
    write_file(directory / SERVICE_FILE, msgspec.json.encode(written))
    _own(directory / SERVICE_FILE, directory)
    write_file(path, text.encode(), mode=0o644)
    by_hand = [" ".join(call) for call in _calls(kind, "enable", "--now", name)]
    started = start and running_systemd()
    if started:
        asyncio.run(systemctl(kind, "daemon-reload"))
        asyncio.run(systemctl(kind, "enable", "--now", name))
    text = f"written to {path}\n" + (
        f"started; its log: journalctl -u {name}"
        if started
        else "next: " + "\n      ".join(by_hand)
    )
    emit({"unit": str(path), "name": name, "started": started}, as_json=json, text=text)


# --- Units ---------------------------------------------------------------------------------------
def units_directory(kind: Kind) -> Path:
    """Where systemd looks for the units of a kind."""
    if kind is not Kind.DEVICE:
        return SYSTEM_UNITS
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(config) if config else Path.home() / ".config") / "systemd" / "user"


def unit_name(kind: Kind, directory: Path) -> str:
    """`holdfast-node-relay-eu-001.service`; directories of one machine differ by their names."""
    about = directory.name
    if kind is Kind.NODE:
        member = Home(directory).member()
        about = member.name if member is not None else about
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in about)
    return f"holdfast-{kind}-{safe.strip('.-') or kind}.service"


def unit_text(kind: Kind, directory: Path) -> str:
    """The whole unit. Raises UsageError when it would run as root or its paths cannot be written
    into a unit."""
    for path in (str(directory), sys.executable):
        if any(letter in path for letter in '\n"\\%$'):
            raise UsageError(f"systemd cannot be told of {path!r}; use a plainer path")
    lines = [
        "[Unit]",
        f"Description=Holdfast {kind}, {directory}",
        "Wants=network-online.target",
        "After=network-online.target time-sync.target",
        "",
        "[Service]",
        "Type=exec",
        f'ExecStart="{sys.executable}" -m holdfast {_verb(kind)} --dir "{directory}"',
        "Restart=always",
        "RestartSec=2",
        f"RestartPreventExitStatus={RETIRED_STATUS}",
        "TimeoutStopSec=30",
        "LimitNOFILE=65536",
        "",
        _SANDBOX.rstrip(),
    ]
    if kind is Kind.DEVICE:
        return "\n".join([*lines, "", "[Install]", "WantedBy=default.target", ""])
    lines += [f"User={_user(directory)}", _SYSTEM_SANDBOX.rstrip()]
    lines += [f'ReadWritePaths="{directory}"', f"ProtectHome={_protect_home(directory)}"]
    if _needs_low_port(kind, directory):
        lines += ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE"]
        lines += ["AmbientCapabilities=CAP_NET_BIND_SERVICE"]
    else:
        lines += ["CapabilityBoundingSet=", "PrivateUsers=yes"]
    return "\n".join([*lines, "", "[Install]", "WantedBy=multi-user.target", ""])


def _verb(kind: Kind) -> str:
    return {Kind.HQ: "hq serve", Kind.NODE: "node run", Kind.DEVICE: "folder sync --watch"}[kind]


def _user(directory: Path) -> str:
    """The owner of the directory: whom the service runs as. Raises UsageError for root."""
    owner = pwd.getpwuid(directory.stat().st_uid).pw_name
    if owner == "root":
        raise UsageError(
            f"{directory} belongs to root, and nothing of Holdfast needs root; first: "
            f"useradd --system --home-dir {directory} --shell /usr/sbin/nologin holdfast; "
            f"chown -R holdfast: {directory}"
        )
    return owner


def _protect_home(directory: Path) -> str:
    """Hide people's homes, unless the program or the directory lies in one."""
    needed = (str(directory), sys.executable, os.path.realpath(sys.executable))
    inside = any(path.startswith(tuple(home + "/" for home in _HOMES)) for path in needed)
    return "read-only" if inside else "yes"


def _needs_low_port(kind: Kind, directory: Path) -> bool:
    if kind is Kind.HQ:
        config = HqHome(directory).config()
        listens = (config.listen, config.dns_listen)
    else:
        member = Home(directory).member()
        listens = (member.listen, "") if member is not None else ("", "")
    return any(0 < listen_address(text)[1] < LOW_PORTS_END for text in listens if text)


def _own(path: Path, like: Path) -> None:
    """Give a file that root wrote to the owner of the directory it lies in."""
    about = like.stat()
    if about.st_uid != os.geteuid():
        os.chown(path, about.st_uid, about.st_gid)


# --- systemctl -----------------------------------------------------------------------------------
def running_systemd() -> bool:
    """Whether systemd runs this machine."""
    return Path("/run/systemd/system").is_dir()


def _calls(kind: Kind, *words: str) -> list[tuple[str, ...]]:
    manager = ("systemctl", "--user") if kind is Kind.DEVICE else ("systemctl",)
    return [(*manager, "daemon-reload"), (*manager, *words)]


async def systemctl(kind: Kind, *words: str) -> None:
    """Run systemctl. Raises OperationFault when it fails."""
    manager = ("systemctl", "--user") if kind is Kind.DEVICE else ("systemctl",)
    child: Child[Any] = await spawn((*manager, *words))
    if await child.wait() != 0:
        raise OperationFault(f"systemctl {' '.join(words)} failed; see above", retryable=False)
