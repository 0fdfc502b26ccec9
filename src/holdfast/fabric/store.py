"""Everything the fabric of one device keeps on disk: one database, one directory of bodies."""

from __future__ import annotations

from pathlib import Path

from holdfast.fabric import findings, outbox, readings, receipts, records, wallet
from holdfast.fabric.database import Database
from holdfast.limits import OUTBOX_BYTES_MAX
from holdfast.rim.clock import Clock

_BOOKS = (outbox, readings, receipts, records, findings, wallet)
SCHEMA = "\n".join(book.SCHEMA for book in _BOOKS)


class Store:
    """The six books of a client. `more` is the schema of a service that shares the database."""

    def __init__(
        self, directory: Path, clock: Clock, *, more: str = "", bytes_max: int = OUTBOX_BYTES_MAX
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.database = Database(directory / "device.db", SCHEMA + more)
        self.outbox = outbox.Outbox(self.database, directory / "outbox", bytes_max=bytes_max)
        self.readings = readings.Readings(self.database)
        self.receipts = receipts.ReceiptBook(self.database)
        self.records = records.RecordBook(self.database, clock)
        self.wallet = wallet.Wallet(self.database, clock)
        self.findings = findings.FindingBook(self.database)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
