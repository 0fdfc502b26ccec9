"""A role for tests: does what files in its directory say, and writes down what it was told.

told      one line for each message from the agent
starts    one line for each start: the version that runs
raise     MessagePack of an Alert to raise, then removed
accuse    MessagePack of an Accusation to bring, then removed
die       exit with the status in this file, then removed
hang      say nothing any more
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from holdfast import __version__
from holdfast.logic.fleet.model import Load
from holdfast.rim.process import Parent
from holdfast.wire.control import TAKE_OVER, Accuse, Apply, Raise, Ready, Status, Stop, ToRole, Warm
from holdfast.wire.hq import Accusation, Alert


async def main(directory: Path, address: str) -> int:
    parent = await Parent.attach(ToRole)
    _note(directory / "starts", __version__)
    if TAKE_OVER in os.environ:
        await parent.send(Warm())
    talk = asyncio.create_task(_talk(parent, directory, address))
    while (message := await parent.receive()) is not None:
        version = message.desired.version if isinstance(message, Apply) else ""
        _note(directory / "told", f"{type(message).__name__} {version}".strip())
        if isinstance(message, Stop):
            talk.cancel()
            return 0
    return 9


async def _talk(parent: Parent[ToRole], directory: Path, address: str) -> None:
    await parent.send(Ready((address,)))
    while True:
        if (directory / "die").exists():
            status = int((directory / "die").read_text())
            (directory / "die").unlink()
            sys.exit(status)
        if (directory / "raise").exists():
            alert = msgspec.msgpack.decode((directory / "raise").read_bytes(), type=Alert)
            (directory / "raise").unlink()
            await parent.send(Raise(alert))
        if (directory / "accuse").exists():
            said = msgspec.msgpack.decode((directory / "accuse").read_bytes(), type=Accusation)
            (directory / "accuse").unlink()
            await parent.send(Accuse(said))
        if not (directory / "hang").exists():
            await parent.send(Status(Load(sessions=3, blobs=7), filled=True))
        await asyncio.sleep(0.05)


def _note(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]), sys.argv[2])))
