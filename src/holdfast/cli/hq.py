"""`holdfast hq`: set a headquarters up, run it, look inside, decide.

Setting up takes two machines: `init` here writes a request, `holdfast root issue-intermediate`
signs it where the root is, `install` takes the certificate. Everything below `serve` talks to the
running headquarters of the same directory, except `audit`, which reads the store itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import cyclopts

from holdfast.cli.hq_alerts import acknowledge, alerts, metrics
from holdfast.cli.hq_audit import audit
from holdfast.cli.hq_call import call_hq, part
from holdfast.cli.hq_cost import cost
from holdfast.cli.hq_evidence import evidence
from holdfast.cli.hq_operators import agree, drop, openapi, operator, pending
from holdfast.cli.hq_options import Dir, Json
from holdfast.cli.hq_phoenix import front, phoenix, rise
from holdfast.cli.hq_plan import plan
from holdfast.cli.hq_rebalance import rebalance
from holdfast.cli.hq_release import release
from holdfast.cli.hq_rotation import app as rotation
from holdfast.cli.hq_serve import VARIABLES, serve
from holdfast.cli.hq_snapshots import restore, snapshots
from holdfast.cli.hq_standby import standby
from holdfast.cli.hq_upgrade import defer, upgrade
from holdfast.cli.output import emit
from holdfast.cli.plain import described
from holdfast.crypto.certificates import cert_info, from_pem
from holdfast.crypto.pure import base32
from holdfast.errors import UsageError
from holdfast.hq import admin
from holdfast.hq.brain_view import FleetView, ServerView
from holdfast.hq.config import HqConfig, listen_address
from holdfast.hq.fleet_admin import Drain, MassDrain
from holdfast.hq.home import HqHome, at
from holdfast.limits import JOIN_TOKEN_S_MAX
from holdfast.limits.trust import TICKET_GRANT_S_MAX
from holdfast.logic.fleet.model import OPERATOR, Role, Tier
from holdfast.logic.trust.admission import Policy
from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.account import Account
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.files import read_file
from holdfast.wire.address import join_address
from holdfast.wire.hq import ApplicationList

T = TypeVar("T")
API_PORT: Final = 7_400
DNS_PORT: Final = 7_453

app = cyclopts.App(name="hq", help_format="plaintext")
token = cyclopts.App(name="token", help="Join tokens: create, list, revoke.")
app.command(token)
app.command(audit)
app.command(alerts)
app.command(acknowledge)
app.command(metrics)
app.command(cost)
app.command(evidence)
app.command(snapshots)
app.command(restore)
app.command(phoenix)
app.command(rise)
app.command(front)
app.command(plan)
app.command(standby)
app.command(rebalance)
app.command(rotation)
app.command(operator)
app.command(pending)
app.command(agree)
app.command(drop)
app.command(openapi)
app.command(release)
app.command(upgrade)
app.command(defer)
app.command(described(serve, VARIABLES, dir="Directory of the headquarters."))


# --- Setting up ----------------------------------------------------------------------------------
@app.command
def init(
    *,
    home: Dir,
    root_cert: Path,
    host: str = "",
    domain: str = "",
    listen: str = "",
    address: list[str] | None = None,
    dns_listen: str = "",
    dns_address: list[str] | None = None,
    admin_listen: str = "127.0.0.1:0",
    regions: str = "eu",
    provider: list[str] | None = None,
    admission: Policy = Policy.INVITE,
    time_scale: float = 1.0,
    json: Json = False,
) -> None:
    """Make the keys of a headquarters and the request that the root must sign.

    Parameters
    ----------
    root_cert
        root.crt of the network.
    host
        This machine's address as nodes and devices reach it. Without it, and without --listen,
        the headquarters serves this machine alone.
    domain
        Domain of the network; the root's by default.
    listen
        host:port of the API; port 7400 of every address with --host.
    address
        host:port where nodes and devices reach the API, when it differs; may be repeated.
    dns_listen
        host:port of the DNS server; port 7453 of every address with --host.
    dns_address
        host:port where resolvers reach it, when it differs.
    admin_listen
        Loopback host:port for this command and the web page; port 0 picks one.
    regions
        Regions of the network, comma-separated.
    provider
        A provider account as name=endpoint,key-file; give it as often as needed.
    admission
        Who gets in: invite, approve, vote or open.
    time_scale
        Elapsed seconds per real second, for drills.
    """
    data = read_file(root_cert)
    if data is None:
        raise UsageError(f"no file {root_cert}; it is made by holdfast root create")
    names = tuple(filter(None, regions.split(",")))
    roots = from_pem(data)
    config = HqConfig(
        domain=domain or cert_info(roots[0]).domain,
        listen=_listen(listen, host, API_PORT),
        addresses=_reached_at(address, host, listen, API_PORT),
        dns_listen=_listen(dns_listen, host, DNS_PORT),
        dns_addresses=_reached_at(dns_address, host, dns_listen, DNS_PORT),
        admin_listen=admin_listen,
        regions=names,
        providers=tuple(_provider(text, names) for text in provider or ()),
        admission=admission,
        time_scale=time_scale,
    )
    hq = HqHome(home)
    line = hq.init(config, roots, SystemEntropy())
    _asked(hq, line, json)


@app.command
def request(*, home: Dir, json: Json = False) -> None:
    """Ask for the next intermediate certificate, while the present one is in use."""
    hq = at(home)
    _asked(hq, hq.request(SystemEntropy()), json)


@app.command
def install(certificate: Path, *, home: Dir, json: Json = False) -> None:
    """Take the intermediate certificate that the root has signed.

    Parameters
    ----------
    certificate
        The file that `holdfast root issue-intermediate` wrote.
    """
    data = read_file(certificate)
    if data is None:
        raise UsageError(f"no file {certificate}")
    hq = at(home)
    hq.install(from_pem(data)[0], SystemClock().wall())
    text = f"installed; next: holdfast hq serve --dir {hq.directory}"
    emit({"installed": str(certificate)}, as_json=json, text=text)


@app.command
def locator(*, home: Dir, json: Json = False) -> None:
    """Print the network's locator: what a new device begins with. It is not secret."""
    line = str(at(home).locator())
    emit({"locator": line}, as_json=json, text=line)


@app.command(name="add-root")
def add_root(root_cert: Path, *, home: Dir, json: Json = False) -> None:
    """Trust the roots in a root.crt besides those trusted now: a step of a rollover.

    Parameters
    ----------
    root_cert
        root.crt of the second root, with the link that the first one signed.
    """
    data = read_file(root_cert)
    if data is None:
        raise UsageError(f"no file {root_cert}")
    hq = at(home)
    for item in from_pem(data):
        hq.add_root(item)
    text = "added; restart headquarters to use it"
    emit({"roots": len(hq.roots())}, as_json=json, text=text)


# --- Looking -------------------------------------------------------------------------------------
@app.command
def status(*, home: Dir, json: Json = False) -> None:
    """Say how headquarters is."""
    found = call_hq(home, "GET", "/status", None, admin.Status)
    lead = f"leads, term {found.term}" if found.leading else "does not lead"
    frozen = "\nFROZEN: much of the fleet seems dead at once; see confirm-unfreeze"
    text = (
        f"{found.domain}: {lead}; {found.servers} servers, {found.slots} slots, "
        f"{found.groups} groups, {found.certificates} certificates\n"
        f"api {', '.join(found.api)}  dns {', '.join(found.dns)}  admission {found.admission}\n"
        f"audit {found.audit_sequence} {found.audit_hash[:16]}  "
        f"log {found.log_size} {found.log_root[:16]}" + (frozen if found.frozen else "")
    )
    if found.credentials_due:
        text += (
            f"\nkeys to rotate: {', '.join(found.credentials_due)}; see provider credential show"
        )
    emit(found, as_json=json, text=text)


@app.command
def servers(*, home: Dir, json: Json = False) -> None:
    """List the logical servers."""
    view = _fleet(home)
    lines = [
        f"{s.name:20} {s.tier.value:7} {s.state.value:9} {s.provider:10} {s.owner:10} "
        f"{s.node[:8] or '-':8} {', '.join(s.addresses)}{_under_way(s)}{_plea(s, view)}"
        for s in view.servers
    ]
    emit({"servers": view.servers}, as_json=json, text="\n".join(lines) or "no servers")


@app.command
def slots(*, home: Dir, json: Json = False) -> None:
    """List the slots, with their redundancy and debts."""
    view = _fleet(home)
    lines = [
        f"{s.slot} {s.region:4} v{s.version} groups {s.groups}  "
        f"relays {s.relays}/3 replicas {s.replicas}/3 debts {s.debts}"
        for s in view.slots
    ]
    record = {"slots": view.slots, "debts": view.debts, "frozen": view.frozen}
    emit(record, as_json=json, text="\n".join(lines) or "no slots")


@app.command
def page(*, home: Dir, json: Json = False) -> None:
    """Print a one-time login link to the web page."""
    link = call_hq(home, "POST", "/login-link", None, admin.Link)
    emit(link, as_json=json, text=link.url)


# --- Deciding ------------------------------------------------------------------------------------
@app.command
def launch(*, home: Dir, regions: str = "", json: Json = False) -> None:
    """Order a relay and a replica in every region at every provider; again is no harm.

    Parameters
    ----------
    regions
        Comma-separated; the configured ones by default.
    """
    order = admin.Launch(tuple(filter(None, regions.split(","))))
    done = call_hq(home, "POST", "/launch", order, admin.Done)
    emit(done, as_json=json, text=f"launching in {done.subject}")


@app.command(name="confirm-unfreeze")
def confirm_unfreeze(*, home: Dir, json: Json = False) -> None:
    """Say that the loss is real: headquarters may spawn again."""
    done = call_hq(home, "POST", "/confirm-unfreeze", None, admin.Done)
    emit(done, as_json=json, text="confirmed")


@app.command
def drain(name: str, *more: str, home: Dir, reason: str = "", json: Json = False) -> None:
    """Replace a server while it serves: its machine goes once another is filled.

    Parameters
    ----------
    name
        As `holdfast hq servers` lists it; several at once need a second operator.
    reason
        Why; it is written to the audit log.
    """
    if more:
        order = MassDrain((name, *more), reason)
        done = call_hq(home, "POST", "/drain", order, admin.Done)
    else:
        done = call_hq(home, "POST", f"/servers/{part(name)}/drain", Drain(reason), admin.Done)
    emit(done, as_json=json, text=f"{done.subject} drains; follow it: holdfast hq servers")


@app.command
def revoke(
    *,
    home: Dir,
    reason: str,
    node: str = "",
    serial: str = "",
    key: str = "",
    json: Json = False,
) -> None:
    """Exclude a node for ever, or one certificate, or one TLS key.

    Parameters
    ----------
    reason
        Why; it is public.
    node
        Node id, base32.
    serial
        Serial of a certificate, decimal.
    key
        SHA-256 of a key's SPKI, hex.
    """
    order = admin.RevokeOrder(reason=reason, node=node, serial=serial, key=key)
    done = call_hq(home, "POST", "/revoke", order, admin.Done)
    emit(done, as_json=json, text=f"revoked {done.subject}")


@token.command(name="create")
def token_create(
    *,
    home: Dir,
    role: Role,
    region: str,
    owner: str = OPERATOR,
    provider: str = "",
    name: str = "",
    cell: str = "",
    hours: float = JOIN_TOKEN_S_MAX / 3600,
    json: Json = False,
) -> None:
    """Make a one-time join token and print it. It is shown once.

    Parameters
    ----------
    role
        relay, replica, entry or core.
    region
        Where the machine stands.
    owner
        Whose machine it is; the owner is part of the failure domain.
    provider
        Who hosts it; what the machine says when empty.
    name
        Logical server; the next free one when empty.
    cell
        Where an entry or a core belongs.
    hours
        How long the token is good, at most 24.
    """
    order = admin.TokenOrder(
        role=role,
        region=region,
        owner=owner,
        provider=provider,
        name=name,
        cell=cell,
        life_s=hours * 3600,
    )
    made = call_hq(home, "POST", "/tokens", order, admin.TokenMade)
    emit(made, as_json=json, text=made.token)


@app.command
def grant(
    *,
    home: Dir,
    tickets: int,
    kind: str = "plain",
    member: str = "",
    days: float = TICKET_GRANT_S_MAX / 86_400,
    json: Json = False,
) -> None:
    """Make a grant of tickets for a member and print its line. It is shown once.

    The member draws tickets with `holdfast device tickets LINE`; headquarters signs them blindly
    and cannot tell later which group used which.

    Parameters
    ----------
    tickets
        How many: one for each new group.
    kind
        A class of hq.json.
    member
        Whom it is for; goes to the audit log.
    days
        How long tickets may be drawn.
    """
    order = admin.GrantOrder(kind=kind, tickets=tickets, member=member, life_s=days * 86_400)
    made = call_hq(home, "POST", "/grants", order, admin.GrantMade)
    emit(made, as_json=json, text=made.grant)


@token.command(name="list")
def token_list(*, home: Dir, json: Json = False) -> None:
    """List the tokens HQ remembers, by hash."""
    found = call_hq(home, "GET", "/tokens", None, admin.TokenItems)
    lines = [
        f"{item.hash[:16]} {item.name:20} {'used by ' + item.used_by[:8] if item.used_by else '-'}"
        for item in found.items
    ]
    emit(found, as_json=json, text="\n".join(lines) or "no tokens")


@token.command(name="revoke")
def token_revoke(hash: str, *, home: Dir, json: Json = False) -> None:
    """Make an unused token worthless.

    Parameters
    ----------
    hash
        As `holdfast hq token list --json` shows it, whole.
    """
    done = call_hq(home, "DELETE", f"/tokens/{part(hash)}", None, admin.Done)
    emit(done, as_json=json, text=f"revoked the token for {done.subject}")


@app.command
def applications(*, home: Dir, json: Json = False) -> None:
    """List who has asked to join."""
    found = call_hq(home, "GET", "/applications", None, ApplicationList)
    lines = [
        f"{a.id} {a.state:9} {a.role.value:8} {a.owner}: {a.reason}"
        + (f" (sponsor {a.sponsor})" if a.sponsor else "")
        + (f" [{a.yes} yes, {a.no} no]" if a.yes or a.no else "")
        for a in found.items
    ]
    emit(found, as_json=json, text="\n".join(lines) or "nobody has asked")


@app.command
def approve(id: str, *, home: Dir, reason: str = "", json: Json = False) -> None:
    """Let an applicant in: it fetches a token.

    Parameters
    ----------
    id
        As `holdfast hq applications` shows it.
    reason
        What the applicant reads.
    """
    answer = admin.Answer(reason)
    done = call_hq(home, "POST", f"/applications/{part(id)}/approve", answer, admin.Done)
    emit(done, as_json=json, text=f"approved {done.subject}")


@app.command
def decline(id: str, *, home: Dir, reason: str, json: Json = False) -> None:
    """Turn an applicant down.

    Parameters
    ----------
    id
        As `holdfast hq applications` shows it.
    reason
        What the applicant reads.
    """
    answer = admin.Answer(reason)
    done = call_hq(home, "POST", f"/applications/{part(id)}/decline", answer, admin.Done)
    emit(done, as_json=json, text=f"declined {done.subject}")


# --- Helpers -------------------------------------------------------------------------------------
def _fleet(home: Path) -> FleetView:
    return call_hq(home, "GET", "/fleet", None, FleetView)


def _provider(text: str, regions: tuple[str, ...]) -> Account:
    name, _, rest = text.partition("=")
    endpoint, _, key_file = rest.partition(",")
    if not (name and endpoint and key_file):
        raise UsageError(f"{text!r}: write a provider as name=endpoint,key-file")
    return Account(name, endpoint, str(Path(key_file).absolute()), regions)


def _under_way(server: ServerView) -> str:
    """That it is being replaced, and how far that is."""
    words = ["drains"] if server.draining else []
    if server.spawn:
        words.append(f"its next machine is {server.spawn}")
    return f"  ({', '.join(words)})" if words else ""


def _plea(server: ServerView, view: FleetView) -> str:
    """What a person must do about a dead server that headquarters cannot replace, if anything."""
    replaceable = any(provider.state == "up" for provider in view.providers) or server.spawn
    if server.tier not in (Tier.RED, Tier.BLACK) or replaceable:
        return ""
    whose = "your machine" if server.owner == OPERATOR else f"{server.owner}'s machine"
    return (
        f"\n  {whose}: start it again (holdfast node run), or replace it: holdfast hq token "
        f"create --role {server.role.value} --region {server.region} --owner {server.owner} "
        f"--provider {server.provider or 'NAME'} --name {server.name}"
    )


def _listen(listen: str, host: str, port: int) -> str:
    """Where to listen: as given, else everywhere when the host is known, else loopback."""
    everywhere = "[::]" if ":" in host else "0.0.0.0"
    return listen or f"{everywhere if host else '127.0.0.1'}:{port}"


def _reached_at(given: list[str] | None, host: str, listen: str, port: int) -> tuple[str, ...]:
    """What others are told: as given, else `host` with the port that is listened on."""
    if given or not host:
        return tuple(given or ())
    return (join_address(host.strip("[]"), listen_address(listen)[1] if listen else port),)


def _asked(hq: HqHome, line: str, json: bool) -> None:
    path = hq.directory / "request.txt"
    record = {"request": line, "request_file": str(path), "identity": base32(hq.identity().node)}
    text = (
        f"{line}\n\nThis line is public; it is also in {path}.\n"
        f"Headquarters {base32(hq.identity().node)}. Where the root is:\n"
        "  holdfast root issue-intermediate --root ROOT --hq-request LINE-OR-FILE --out hq.crt\n"
        f"then bring hq.crt here: holdfast hq install hq.crt --dir {hq.directory}"
    )
    emit(record, as_json=json, text=text)
