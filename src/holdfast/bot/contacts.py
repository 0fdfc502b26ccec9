"""Who writes, without keeping who they are: ids of Telegram users only as HMAC.

The key lies in the bot's own directory and nowhere else, so that neither the registry alone nor the
bot's files alone say who a member is. What a reply needs, the chat's id, is in memory for those who
have written since the bot started; after a restart an alert waits until they write again.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import msgspec

from holdfast.errors import UsageError
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import make_private_directory, read_file, write_file

KEY_BYTES = 32
REQUESTS_MAX = 200
NOTE_LETTERS_MAX = 200


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody asks for access. `contact` is an HMAC; `code` is how operators call it."""

    code: str
    contact: bytes
    note: str


class Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the bot writes down."""

    operators: tuple[bytes, ...] = ()
    quiet: tuple[bytes, ...] = ()
    """Who wants no alerts."""
    requests: tuple[Request, ...] = ()


class Contacts:
    """The bot's directory: `contacts.key`, `contacts.json`."""

    def __init__(self, directory: Path, entropy: Entropy) -> None:
        """Made when it is not there. Raises UsageError for files that are not the bot's."""
        make_private_directory(directory)
        self._path = directory / "contacts.json"
        key_path = directory / "contacts.key"
        key = read_file(key_path)
        if key is None:
            key = entropy.bytes(KEY_BYTES)
            write_file(key_path, key)
        if len(key) != KEY_BYTES:
            raise UsageError(f"{key_path} is no key of this bot")
        self._key = key
        data = read_file(self._path)
        try:
            self.book = msgspec.json.decode(data, type=Book) if data is not None else Book()
        except msgspec.DecodeError as error:
            raise UsageError(f"{self._path}: {error}") from error

    def contact(self, user: int) -> bytes:
        """What a Telegram user is called here and in the registry."""
        return hmac.new(self._key, b"telegram %d" % user, hashlib.sha256).digest()

    def change(self, **fields: object) -> None:
        """Replace parts of the book; on disk when it returns."""
        self.book = msgspec.structs.replace(self.book, **fields)
        write_file(self._path, msgspec.json.encode(self.book))

    def request_of(self, contact: bytes) -> Request | None:
        """The waiting request of a contact."""
        return next((r for r in self.book.requests if r.contact == contact), None)
