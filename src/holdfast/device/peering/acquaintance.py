"""The address book on disk: peers, their window secrets, and their last known addresses."""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.errors import OperationFault
from holdfast.logic.peers.book import AddressBook, Entry
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file, write_file


class Kept(msgspec.Struct):
    """`peers.book` in the device's directory. `n` of the last presence that was signed."""

    own: bytes
    n: int = 0
    hosts: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


class Acquaintance:
    """An open book."""

    def __init__(self, path: Path, entropy: Entropy) -> None:
        """Raises OperationFault for a file that is damaged."""
        self._path = path
        data = read_file(path)
        try:
            kept = Kept(entropy.bytes(32)) if data is None else msgspec.msgpack.decode(
                data, type=Kept
            )  # fmt: skip
        except msgspec.MsgspecError as error:
            raise OperationFault(f"{path} is damaged; remove it and pair again") from error
        self.own, self.n, self.hosts = kept.own, kept.n, kept.hosts
        self.book = AddressBook(kept.entries)

    def save(self) -> None:
        """Replace the file."""
        kept = Kept(self.own, self.n, self.hosts, tuple(self.book))
        write_file(self._path, msgspec.msgpack.encode(kept))
