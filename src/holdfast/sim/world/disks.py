"""A disk: what was written, what is durable, and what can become of both.

The fault model, after TigerBeetle's. What was appended and not yet synced may be lost wholly or
be torn, in one piece or with rubbish at its end, when the machine loses power. What is durable may
rot, a byte at a time. A full disk refuses to append; a broken one refuses to sync, and then nothing
after the last sync may be believed. A disk that loses what a sync confirmed is a dead disk.
"""

from __future__ import annotations

from holdfast.sim.world.chance import Chance


class DiskFault(OSError):
    """The disk said no."""


class Disk:
    """Files by name. `room` is bytes still free."""

    def __init__(self, chance: Chance, room: int = 1 << 40) -> None:
        self._chance = chance
        self._files: dict[str, bytearray] = {}
        self._durable: dict[str, int] = {}
        self.room = room
        self.sync_fails = False
        self.torn = True
        """Whether a power cut may leave a part of what was not synced."""

    def names(self) -> list[str]:
        """All files, in order."""
        return sorted(self._files)

    def append(self, name: str, data: bytes) -> int:
        """Append; where it starts. Raises DiskFault when there is no room."""
        if len(data) > self.room:
            raise DiskFault("no space left on device")
        file = self._files.setdefault(name, bytearray())
        self.room -= len(data)
        file += data
        return len(file) - len(data)

    def sync(self, name: str) -> None:
        """Make a file durable. Raises DiskFault when the disk is broken."""
        if self.sync_fails:
            raise DiskFault("input/output error")
        self._durable[name] = len(self._files[name])

    def read(self, name: str, offset: int, size: int) -> bytes:
        """What is there; less at the end."""
        return bytes(self._files.get(name, b"")[offset : offset + size])

    def size(self, name: str) -> int:
        return len(self._files.get(name, b""))

    def cut(self, name: str, size: int) -> None:
        """Truncate."""
        file = self._files[name]
        self.room += len(file) - size
        del file[size:]
        self._durable[name] = min(self._durable.get(name, 0), size)

    def remove(self, name: str) -> None:
        """Delete a file."""
        self.room += len(self._files.pop(name, b""))
        self._durable.pop(name, None)

    # --- Faults ----------------------------------------------------------------------------------
    def lose_power(self) -> None:
        """What was not synced is gone, or torn."""
        for name in self.names():
            safe = self._durable.get(name, 0)
            rest = self.size(name) - safe
            kept = self._chance.below(rest + 1) if self.torn and rest else 0
            self.cut(name, safe + kept)
            if kept and self._chance.happens(0.3):
                self._files[name][-1] ^= 0x55
            self._durable[name] = self.size(name)

    def rot(self) -> bool:
        """One durable byte changes. False when there is none."""
        names = [name for name in self.names() if self._durable.get(name, 0)]
        if not names:
            return False
        name = self._chance.one(names)
        self._files[name][self._chance.below(self._durable[name])] ^= 0xFF
        return True

    def wipe(self) -> None:
        """Another disk, empty."""
        for name in self.names():
            self.remove(name)
