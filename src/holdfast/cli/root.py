"""`holdfast root`: the ceremony of the network root, on a machine that is not headquarters.

`create` once; `issue-intermediate` for every headquarters and every 18 months; `rollover` and later
`drop` when the key may be known to others or nears its end. All of it works without a network.
"""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import cyclopts

from holdfast.cli.output import emit
from holdfast.cli.release_key import make_release_key
from holdfast.crypto.certificates import (
    Authority,
    cert_info,
    fingerprint,
    from_pem,
    sign_intermediate,
    to_pem,
)
from holdfast.crypto.certinfo import is_self_signed
from holdfast.crypto.pure import base32, node_id
from holdfast.crypto.sealedfile import check_passphrase
from holdfast.crypto.shares import parse_plan
from holdfast.errors import PeerFault, UsageError
from holdfast.rim import rootfiles
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.files import read_file, write_file
from holdfast.rim.rootfiles import Custody
from holdfast.wire.ceremony import check_request, parse_request

app = cyclopts.App(name="root", help_format="plaintext")

DEFAULT_DOMAIN: Final = "holdfast.internal"
_DAY_S: Final = 86_400

Json = Annotated[bool, cyclopts.Parameter(negative="", help="One JSON object instead of text.")]


@app.command
def create(
    *,
    out: Path,
    passphrase_file: Path | None = None,
    shares: str = "",
    domain: str = DEFAULT_DOMAIN,
    json: Json = False,
) -> None:
    """Make the root of a new network. Its key is kept under a passphrase or on cards.

    Parameters
    ----------
    out
        New directory for root.crt (public) and root.age or the cards. Not on headquarters' disk.
    passphrase_file
        File whose first line is the passphrase; asked for when neither this nor --shares is given.
    shares
        Cards instead of a passphrase: 2of3 makes three, any two of which open the root.
    domain
        Domain under which all servers of the network will be named.
    """
    entropy = SystemEntropy()
    root = rootfiles.create(
        out,
        _custody(passphrase_file, shares, "Passphrase for the new root: "),
        network=entropy.bytes(16),
        domain=domain,
        now=SystemClock().wall(),
        entropy=entropy,
    )
    _report(out, root, json, "made")


@app.command(name="issue-intermediate")
def issue_intermediate(
    *,
    root: Path,
    hq_request: str,
    out: Path,
    passphrase_file: Path | None = None,
    card: list[Path] | None = None,
    starts_in_days: float = 0.0,
    json: Json = False,
) -> None:
    """Sign the request of a headquarters: it may then issue node certificates for 18 months.

    Compare the identity that is printed with what headquarters shows before carrying --out to it.

    Parameters
    ----------
    root
        Directory of the root.
    hq_request
        The line that headquarters printed (hfcert1...), or a file that holds it.
    out
        Where the certificate is written, PEM.
    passphrase_file
        File whose first line is the root's passphrase.
    card
        File of a card; give as many as the plan needs.
    starts_in_days
        Sign for later: the next certificate, to be sealed until the present one ends.
    """
    now = SystemClock().wall()
    line = _request_line(hq_request)
    if not 0 <= starts_in_days <= 3_650:
        raise UsageError("--starts-in-days is between 0 and 3650")
    authority = _open(root, passphrase_file, card or [])
    info = cert_info(authority.certificate)
    assert info.name is not None
    request = parse_request(line)
    spki = check_request(request, info.name.network)
    certificate = sign_intermediate(
        authority,
        spki=spki,
        network=info.name.network,
        identity_public=request.identity,
        now=now + starts_in_days * _DAY_S,
    )
    write_file(out, to_pem([certificate]), mode=0o644)
    issued = cert_info(certificate)
    identity = base32(node_id(request.identity))
    record = {
        "identity": identity,
        "serial": issued.serial,
        "not_before": issued.not_before,
        "not_after": issued.not_after,
        "key_hash": issued.key_hash.hex(),
        "out": str(out),
    }
    text = (
        f"headquarters {identity}\nserial {issued.serial}, "
        f"{_day(issued.not_before)} to {_day(issued.not_after)}\nwritten to {out}; "
        f"bring it to headquarters: holdfast hq install {out.name} --dir HQ"
    )
    emit(record, as_json=json, text=text)


@app.command(name="release-key")
def release_key(
    *,
    root: Path,
    out: Path,
    passphrase_file: Path | None = None,
    card: list[Path] | None = None,
    json: Json = False,
) -> None:
    """Make the key that signs releases, vouched for by the root for two years; again renews it.

    Keep it with people, never on headquarters: who has it can make every server run anything.

    Parameters
    ----------
    root
        Directory of the root.
    out
        Directory for release.key and release.crt.
    passphrase_file
        File whose first line is the root's passphrase.
    card
        File of a card; give as many as the plan needs.
    """
    authority = _open(root, passphrase_file, card or [])
    info = cert_info(make_release_key(authority, out, SystemClock().wall(), SystemEntropy()))
    record = {"out": str(out), "key_hash": info.key_hash.hex(), "not_after": info.not_after}
    text = (
        f"release key in {out}, until {_day(info.not_after)}\n"
        f"if it is ever lost: holdfast hq revoke --key {info.key_hash.hex()}"
    )
    emit(record, as_json=json, text=text)


@app.command
def rollover(
    *,
    root: Path,
    out: Path,
    passphrase_file: Path | None = None,
    card: list[Path] | None = None,
    new_passphrase_file: Path | None = None,
    shares: str = "",
    json: Json = False,
) -> None:
    """Make a second root for the same network, vouched for by the present one.

    Carry the new root.crt to every headquarters; nodes take the new root from there because the old
    one has signed it. When all have it, let headquarters ask for an intermediate of the new root,
    and end with `holdfast root drop`.

    Parameters
    ----------
    root
        Directory of the present root.
    out
        New directory for the second root.
    passphrase_file
        File whose first line is the present root's passphrase.
    card
        File of a card of the present root; give as many as its plan needs.
    new_passphrase_file
        File whose first line is the second root's passphrase.
    shares
        Cards for the second root, for example 2of3.
    """
    custody = _custody(new_passphrase_file, shares, "Passphrase for the second root: ")
    old = _open(root, passphrase_file, card or [])
    new = rootfiles.roll_over(
        old, root, out, custody, now=SystemClock().wall(), entropy=SystemEntropy()
    )
    _report(out, new, json, "made, vouched for by the present root")


@app.command
def drop(*, root: Path, fingerprint: str, json: Json = False) -> None:
    """End a rollover: take a root out of the set in root.crt.

    Parameters
    ----------
    root
        Directory of the root that stays.
    fingerprint
        SHA-256 of the root to leave out, as `holdfast root show` prints it.
    """
    try:
        unwanted = bytes.fromhex(fingerprint.replace(" ", ""))
    except ValueError as error:
        raise UsageError("a fingerprint is 64 hexadecimal digits") from error
    rootfiles.drop(root, unwanted)
    show(root=root, json=json)


@app.command
def show(*, root: Path, json: Json = False) -> None:
    """Print the root set: fingerprints, network, domain, life.

    Parameters
    ----------
    root
        Directory of a root, or a file like root.crt.
    """
    items = rootfiles.root_set(root) if root.is_dir() else _certificates(root)
    rows = [_row(item) for item in items]
    text = "\n".join(
        f"{row['kind']:5} {row['fingerprint']}  {row['domain']}  until {_day(row['not_after'])}"
        for row in rows
    )
    emit({"roots": rows}, as_json=json, text=text)


def create_embedded(
    directory: Path, *, network: bytes, domain: str, now: float, entropy: Entropy
) -> Authority:
    """The root of `holdfast up`: age file and age key side by side, outside HQ's directory."""
    return rootfiles.create(
        directory, rootfiles.EMBEDDED, network=network, domain=domain, now=now, entropy=entropy
    )


def open_embedded(directory: Path) -> Authority:
    """The root that `create_embedded` made. Raises UsageError."""
    return rootfiles.open_root(directory)


# --- Helpers -------------------------------------------------------------------------------------
def _custody(passphrase_file: Path | None, shares: str, prompt: str) -> Custody:
    if shares and passphrase_file is not None:
        raise UsageError("a root is kept under a passphrase or on cards; give one of the two")
    if shares:
        return Custody(plan=parse_plan(shares))
    passphrase = _passphrase(passphrase_file, prompt, twice=True)
    check_passphrase(passphrase)
    return Custody(passphrase=passphrase)


def _open(root: Path, passphrase_file: Path | None, cards: list[Path]) -> Authority:
    if cards:
        return rootfiles.open_root(root, cards=[_card(path) for path in cards])
    rootfiles.root_set(root)
    if passphrase_file is None and not rootfiles.needs_secret(root):
        return rootfiles.open_root(root)
    passphrase = _passphrase(passphrase_file, "Passphrase of the root: ", twice=False)
    return rootfiles.open_root(root, passphrase=passphrase)


def _passphrase(path: Path | None, prompt: str, *, twice: bool) -> str:
    if path is not None:
        data = read_file(path)
        if data is None:
            raise UsageError(f"no file {path}; its first line is the passphrase")
        return data.decode(errors="replace").partition("\n")[0].rstrip("\r")
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask for a passphrase; give --passphrase-file or cards")
    passphrase = getpass.getpass(prompt)
    if twice and getpass.getpass("Again: ") != passphrase:
        raise UsageError("the two passphrases differ; try again")
    return passphrase


def _request_line(given: str) -> str:
    """The request itself, or what the file of that name holds. Raises UsageError."""
    if given.lower().startswith("hfcert1"):
        return given.strip()
    data = read_file(Path(given))
    if data is None:
        raise UsageError(f"no file {given[:80]}; headquarters writes it with: holdfast hq init")
    return data.decode(errors="replace").strip()


def _card(path: Path) -> str:
    data = read_file(path)
    if data is None:
        raise UsageError(f"no card {path}; a card is a file of words")
    return rootfiles.read_card(data.decode(errors="replace"))


def _certificates(path: Path) -> tuple[bytes, ...]:
    data = read_file(path)
    if data is None:
        raise UsageError(f"no file {path}; give a root's directory or root.crt")
    try:
        return from_pem(data)
    except PeerFault as fault:
        raise UsageError(f"{path}: {fault}") from fault


def _row(item: bytes) -> dict[str, str | int]:
    info = cert_info(item)
    name = info.name
    return {
        "kind": "root" if is_self_signed(item) else "link",
        "fingerprint": fingerprint(item).hex(),
        "network": name.network.hex() if name is not None else "",
        "domain": info.domain,
        "not_before": info.not_before,
        "not_after": info.not_after,
    }


def _report(directory: Path, root: Authority, json: bool, verb: str) -> None:
    row = _row(root.certificate)
    files = sorted(path.name for path in directory.iterdir())
    record = {**row, "directory": str(directory), "files": files}
    text = (
        f"root of {row['domain']} {verb} in {directory}: {', '.join(files)}\n"
        f"network     {row['network']}\nfingerprint {row['fingerprint']}\n"
        "root.crt is public: headquarters needs it. Everything else leaves this machine."
    )
    emit(record, as_json=json, text=text)


def _day(at: str | int) -> str:
    return datetime.fromtimestamp(int(at), tz=UTC).strftime("%Y-%m-%d")
