"""`holdfast hq audit`: read and check the audit chain, from the store itself or from an export."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import cyclopts
import msgspec

from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.audit import audit_rows, heads_of
from holdfast.hq.home import at
from holdfast.logic.audit import Head, check, export_line, import_line
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore

audit = cyclopts.App(name="audit", help="The audit chain: list, verify, export.")
LIST_DEFAULT: Final = 50


@audit.command(name="list")
def show(*, home: Dir, last: int = LIST_DEFAULT, json: Json = False) -> None:
    """Show the newest lines.

    Parameters
    ----------
    last
        How many.
    """
    if last < 1:
        raise UsageError("--last from 1")
    rows, heads = _read(home)
    head = heads[-1]
    lines = [export_line(row) for row in rows[-last:]]
    text = "\n".join(
        f"{line.sequence:6} {line.at:.3f} {line.verb:22} {line.subject} "
        f"{msgspec.json.encode(line.detail).decode()}"
        for line in lines
    )
    record = {"lines": lines, "sequence": head.sequence, "hash": head.hash.hex()}
    emit(record, as_json=json, text=text or "nothing yet")


@audit.command
def verify(
    *, home: Dir | None = None, export: Path | None = None, head: str = "", json: Json = False
) -> int:
    """Check every link of the chain. Exit status 1 when one is broken.

    Parameters
    ----------
    export
        Check this export instead of the store.
    head
        A head that you remember, as sequence:hash; the chain must contain it.
    """
    if (home is None) == (export is None):
        raise UsageError("give --dir or --export")
    remembered = [_head(head)] if head else []
    if export is not None:
        rows = _import(export)
    else:
        assert home is not None
        rows, heads = _read(home)
        remembered += heads
    found, breaks = check(rows, remembered)
    problems = [f"row {item.sequence}: {item.problem}" for item in breaks]
    record = {
        "ok": not breaks,
        "sequence": found.sequence,
        "hash": found.hash.hex(),
        "problems": problems,
    }
    good = f"{found.sequence} rows, whole; head {found.sequence}:{found.hash.hex()}"
    emit(record, as_json=json, text="\n".join(problems) if problems else good)
    return EXIT_NO if breaks else EXIT_OK


@audit.command(name="export")
def write_export(*, home: Dir, out: Path | None = None) -> None:
    """Write the whole chain as JSON Lines, for a program outside headquarters.

    Parameters
    ----------
    out
        The file; standard output when absent.
    """
    rows, _ = _read(home)
    text = b"".join(msgspec.json.encode(export_line(row)) + b"\n" for row in rows)
    if out is None:
        sys.stdout.buffer.write(text)
    else:
        try:
            out.write_bytes(text)
        except OSError as error:
            raise OperationFault(f"cannot write {out}: {error.strerror}") from error


def _read(directory: Path) -> tuple[list[bytes], list[Head]]:
    """Every stored row, and the heads they must contain: logged ones, then the one kept."""

    async def read(path: Path) -> tuple[list[bytes], list[Head]]:
        store = await SqliteStore.open(path, SystemClock())
        try:
            heads = await heads_of(store)
            return [row async for row in audit_rows(store)], heads
        finally:
            await store.close()

    home = at(directory)
    path = home.directory / home.config().store
    if not path.exists():
        raise UsageError(f"{path} does not exist yet; run: holdfast hq serve --dir {directory}")
    return asyncio.run(read(path))


def _import(path: Path) -> list[bytes]:
    try:
        lines: Iterable[bytes] = path.read_bytes().splitlines()
    except OSError as error:
        raise OperationFault(f"cannot read {path}: {error.strerror}") from error
    try:
        return [import_line(line) for line in lines]
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _head(text: str) -> Head:
    sequence, _, digest = text.partition(":")
    try:
        return Head(int(sequence), bytes.fromhex(digest))
    except ValueError as error:
        raise UsageError("--head is sequence:hash, as verify prints it") from error
