"""`holdfast hq evidence`: proofs of misbehaviour; read from the store, checked from a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import cyclopts

from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.output import EXIT_NO, EXIT_OK, emit
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.evidence import EvidenceRow, evidence_rows
from holdfast.hq.home import at
from holdfast.limits.evidence import EVIDENCE_BYTES_MAX
from holdfast.logic.fleet.model import SlotRecord
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.wire.evidence import Evidence, check_evidence, evidence_id, unpack_evidence
from holdfast.wire.signed import Type, decode_body

evidence = cyclopts.App(name="evidence", help="Proofs of misbehaviour: list, show, verify.")


@evidence.command(name="list")
def show_all(*, home: Dir, json: Json = False) -> None:
    """Every proof that headquarters was handed, oldest first."""
    rows = _rows(home)
    text = "\n".join(f"{row.id.hex()[:16]}  {row.name}  {row.kind}: {row.text}" for row in rows)
    emit({"proofs": [_about(row) for row in rows]}, as_json=json, text=text or "nothing yet")


@evidence.command
def show(proof: str, /, *, home: Dir, out: Path | None = None, json: Json = False) -> None:
    """One proof; with --out its bytes go to a file that anybody can verify.

    Parameters
    ----------
    proof
        Its id, or the beginning of it.
    out
        Write the proof there.
    """
    found = [row for row in _rows(home) if row.id.hex().startswith(proof.lower())]
    if len(found) != 1:
        raise UsageError(f"{len(found)} proofs begin with {proof}; see holdfast hq evidence list")
    row = found[0]
    if out is not None:
        out.write_bytes(row.evidence)
    text = f"{row.name} ({base32(row.node)}) {row.text}\nproof {row.id.hex()}, {row.kind}"
    emit(_about(row), as_json=json, text=text + (f"\nwritten to {out}" if out else ""))


@evidence.command
def verify(file: Path, /, *, json: Json = False) -> int:
    """Check a proof by itself; needs no network and no headquarters. Status 1: it proves nothing.

    Parameters
    ----------
    file
        The proof, as `show --out` or a device wrote it.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise OperationFault(f"cannot read {file}: {error.strerror}") from error
    if len(data) > EVIDENCE_BYTES_MAX:
        raise UsageError(f"{file} is larger than any proof")
    record: dict[str, Any] = {"ok": False, "id": evidence_id(data).hex()}
    try:
        read = unpack_evidence(data)
        verdict = check_evidence(read)
    except PeerFault as fault:
        emit(record | {"problem": str(fault)}, as_json=json, text=f"proves nothing: {fault}")
        return EXIT_NO
    name = _name(read, verdict.node)
    record |= {
        "ok": True,
        "kind": str(verdict.kind),
        "node": base32(verdict.node),
        "name": name,
        "tag": verdict.tag.hex(),
        "at": verdict.at,
        "text": verdict.text,
    }
    who = f"{name} (by the enclosed record), " if name else ""
    emit(record, as_json=json, text=f"holds: {who}node {base32(verdict.node)} {verdict.text}")
    return EXIT_OK


def _name(read: Evidence, node: bytes) -> str:
    """What the enclosed record calls the node; a hint, the record is not verified here."""
    if read.record is None:
        return ""
    try:
        record = decode_body(Type.SLOT_RECORD, SlotRecord, read.record.signed)
    except PeerFault:
        return ""
    seat = record.seat_of(node)
    return seat.name if seat else ""


def _about(row: EvidenceRow) -> dict[str, Any]:
    return {
        "id": row.id.hex(),
        "name": row.name,
        "node": base32(row.node),
        "kind": row.kind,
        "text": row.text,
        "at": row.at,
        "received_at": row.received_at,
    }


def _rows(directory: Path) -> list[EvidenceRow]:
    async def read(path: Path) -> list[EvidenceRow]:
        store = await SqliteStore.open(path, SystemClock())
        try:
            return await evidence_rows(store)
        finally:
            await store.close()

    home = at(directory)
    path = home.directory / home.config().store
    if not path.exists():
        raise UsageError(f"{path} does not exist yet; run: holdfast hq serve --dir {directory}")
    return asyncio.run(read(path))
