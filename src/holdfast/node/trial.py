"""What a node decides about releases, as one pure machine (ADR 0041).

| stage    | meaning                                          | leaves on                         |
|----------|--------------------------------------------------|-----------------------------------|
| STEADY   | the role runs a release that is trusted          | a wish for another                |
| FETCHING | the archive is fetched and checked               | fetched; failed; put off          |
| WARMING  | the new role starts beside the old, which serves | warm; failed                      |
| TRYING   | the old role is gone, the new one does not serve | ready; failed                     |
| PROVING  | the new role serves, and is not trusted yet      | proved; failed; a wish for another |

*Failed* is: what was wished for cannot be had or started, or its role ended. Until the old role has
been asked to go that costs nobody anything; after that the role starts again from the last release
that was trusted. Either way the release is refused by name until something else is wished for, and
headquarters is told why. What was running before goes on where it stood. A role that dies later
dies of itself, and is started again as ever; one that does not even serve any more was damaged on
the disk, and what is installed takes its place.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

OWN: Final = b""
"""The release that is no release: what is installed on the machine."""


class Stage(StrEnum):
    STEADY = "steady"
    FETCHING = "fetching"
    WARMING = "warming"
    TRYING = "trying"
    PROVING = "proving"


class Word(StrEnum):
    """What moves a trial on."""

    WISH = "wish"
    FETCHED = "fetched"
    WARM = "warm"
    READY = "ready"
    PROVED = "proved"
    FAILED = "failed"
    PUT_OFF = "put-off"


TABLE: Final[dict[tuple[Stage, Word], Stage]] = {
    (Stage.STEADY, Word.WISH): Stage.FETCHING,
    (Stage.PROVING, Word.WISH): Stage.FETCHING,
    (Stage.FETCHING, Word.FETCHED): Stage.WARMING,
    (Stage.FETCHING, Word.FAILED): Stage.STEADY,
    (Stage.FETCHING, Word.PUT_OFF): Stage.STEADY,
    (Stage.WARMING, Word.WARM): Stage.TRYING,
    (Stage.WARMING, Word.FAILED): Stage.STEADY,
    (Stage.TRYING, Word.READY): Stage.PROVING,
    (Stage.TRYING, Word.FAILED): Stage.STEADY,
    (Stage.PROVING, Word.PROVED): Stage.STEADY,
    (Stage.PROVING, Word.FAILED): Stage.STEADY,
}
_BUSY: Final = frozenset({Stage.FETCHING, Stage.WARMING, Stage.TRYING})


class Kept(msgspec.Struct, frozen=True):
    """What must survive: the last release that was trusted, and the one refused since. `before`
    was trusted before it: its tree stays, because the fleet may be taken back to it."""

    good: bytes = OWN
    refused: bytes = OWN
    why: str = ""
    before: bytes = OWN


class Trial:
    """The machine. `now` is elapsed seconds; ids are `wire.release.ReleaseId`."""

    def __init__(self, kept: Kept, prove_s: float, ready_s: float) -> None:
        self.kept = kept
        self.stage = Stage.STEADY
        self.running = kept.good
        """What the role runs, or is started from next."""
        self.wanted = kept.good
        self.target = kept.good
        """What is being tried."""
        self._prove_s = prove_s
        self._ready_s = ready_s
        self._since = 0.0

    # --- Wishes ----------------------------------------------------------------------------------
    def want(self, release: bytes) -> bool:
        """Headquarters wants this one. True when what is kept changed: a refusal is over once
        something else is wanted."""
        self.wanted = release
        if self.kept.refused and release != self.kept.refused:
            self.kept = Kept(self.kept.good, before=self.kept.before)
            return True
        return False

    def wish(self) -> bytes | None:
        """The release to go to now; None while there is none, or while one is being tried."""
        refused = self.wanted and self.wanted == self.kept.refused
        if self.stage in _BUSY or refused or self.wanted == self.running:
            return None
        return self.wanted

    def begin(self, release: bytes) -> None:
        """Go to a release."""
        self._move(Word.WISH)
        self.target = release

    @property
    def is_proved(self) -> bool:
        """Whether the role runs a release that is trusted."""
        return self.running == self.kept.good and self.stage is Stage.STEADY

    # --- What becomes of it ----------------------------------------------------------------------
    def fetched(self) -> None:
        """It is on the disk, and is what was signed."""
        self._move(Word.FETCHED)

    def warm(self) -> None:
        """The new role waits for the old one to go. From here on a role starts from it."""
        self._move(Word.WARM)
        self.running = self.target
        self._since = float("inf")

    def adopted(self, now: float) -> None:
        """The old role is gone: the new one has so long to serve."""
        if self.stage is Stage.TRYING:
            self._since = now

    def ready(self, now: float) -> None:
        """A role serves."""
        if self.stage is Stage.TRYING:
            self._move(Word.READY)
            self._since = now

    def failed(self, why: str) -> bool:
        """What is tried failed. True when what is kept changed."""
        if (self.stage, Word.FAILED) not in TABLE:
            return False
        self._move(Word.FAILED)
        target = self.target
        if self.running == target:
            self.running = self.kept.good
        self._go_on()
        if target == self.kept.good:
            return False  # the last resort is never refused
        self.kept = Kept(self.kept.good, target, why, self.kept.before)
        return True

    def put_off(self) -> None:
        """It cannot be had now and is not wanted now: nothing is held against it."""
        self._move(Word.PUT_OFF)
        self._go_on()

    def distrust(self) -> bytes:
        """The release that is trusted does not serve any more: what is installed takes its place.
        That release; OWN when there is nothing to fall back to."""
        good = self.kept.good
        if self.stage is not Stage.STEADY or self.running != good or good == OWN:
            return OWN
        self.kept = Kept(OWN, self.kept.refused, self.kept.why)
        self.running = self.target = OWN
        return good

    def proved(self, now: float) -> bool:
        """Whether a role has served long enough to be trusted just now: keep that."""
        if self.stage is not Stage.PROVING or now - self._since < self._prove_s:
            return False
        self._move(Word.PROVED)
        if self.kept.good == self.running:
            return False
        self.kept = Kept(self.running, self.kept.refused, self.kept.why, self.kept.good)
        return True

    def overdue(self, now: float) -> bool:
        """Whether a role that was given the place does not serve in time."""
        return self.stage is Stage.TRYING and now - self._since >= self._ready_s

    def _go_on(self) -> None:
        """What runs beside a failed trial is proved as it was before."""
        self.target = self.running
        if self.running != self.kept.good:
            self.stage = Stage.PROVING

    def _move(self, word: Word) -> None:
        self.stage = TABLE[self.stage, word]
