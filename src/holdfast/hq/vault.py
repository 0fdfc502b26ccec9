"""Providers' keys on a headquarters' disk, sealed (seed 004 §5.4).

| file                          | what                                                       |
|-------------------------------|------------------------------------------------------------|
| seal.key                      | 32 bytes that open the others; `seal_key_file` of hq.json  |
| credentials/<provider>.sealed | the key in use                                             |
| credentials/<provider>.next   | a key that was checked and waits to be taken into use      |

Each is `crypto.atrest` with the provider's name as its place: a file under another name does not
open. A copy of the control store, or of the directory without `seal.key`, opens nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from holdfast.crypto.atrest import AtRest
from holdfast.errors import OperationFault
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, remove_file, write_file

SEAL_KEY: Final = "seal.key"
DIRECTORY: Final = "credentials"
_KEY_BYTES: Final = 32


class Vault:
    """The sealed keys below one directory. Values are opened when asked for and not kept."""

    def __init__(self, home: Path, seal_key_file: str, entropy: Entropy) -> None:
        self._directory = home / DIRECTORY
        self._key_path = home / seal_key_file
        self._entropy = entropy

    def get(self, provider: str) -> str | None:
        """The key in use. Raises OperationFault when it does not open."""
        return self._open(self._path(provider, "sealed"), provider)

    def staged(self, provider: str) -> str | None:
        """The key that waits. Raises OperationFault when it does not open."""
        return self._open(self._path(provider, "next"), provider)

    def put(self, provider: str, value: str) -> None:
        """Use this key from now on; the former is gone. Raises OperationFault."""
        self._seal(self._path(provider, "sealed"), provider, value)

    def stage(self, provider: str, value: str) -> None:
        """Keep a key until it is taken into use. Raises OperationFault."""
        self._seal(self._path(provider, "next"), provider, value)

    def unstage(self, provider: str) -> None:
        """Nothing waits any more."""
        if self._directory.exists():
            remove_file(self._path(provider, "next"))

    def _path(self, provider: str, kind: str) -> Path:
        return self._directory / f"{quote(provider, safe='')}.{kind}"

    def _seal(self, path: Path, provider: str, value: str) -> None:
        make_private_directory(self._directory)
        write_file(path, self._at_rest(make=True).seal(_place(provider), value.encode()))

    def _open(self, path: Path, provider: str) -> str | None:
        kept = read_file(path)
        if kept is None:
            return None
        try:
            return self._at_rest().open(_place(provider), kept).decode()
        except OperationFault as fault:
            if fault.retryable:
                raise
            text = f"{path} does not open with {self._key_path}; set the key of {provider} anew"
            raise OperationFault(
                f"{text}: holdfast provider credential set", retryable=False
            ) from (None)

    def _at_rest(self, *, make: bool = False) -> AtRest:
        """Under `seal.key`, which is made with the first key that is sealed."""
        key = read_file(self._key_path)
        if key is None and make and not any(self._directory.glob("*.sealed")):
            key = self._entropy.bytes(_KEY_BYTES)
            write_file(self._key_path, key)
        if key is None or len(key) != _KEY_BYTES:
            raise OperationFault(
                f"{self._key_path} is missing or damaged: it opens the providers' keys; bring it "
                "back, or remove credentials/ and set the keys anew"
            )
        return AtRest(key)


def _place(provider: str) -> str:
    return f"credential/{provider}"
