"""Every format of a subscription, against the rules by which its clients parse it.

The parsers here are written from what is known of each client (v2rayNG's VlessFmt.kt, Hiddify's
profile_parser.dart, mihomo's convert and VlessOption, sing-box's option package), as strict as
they are: what one of them drops or refuses must fail here.
"""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from tests.logic.access.test_subscription import view

from holdfast.logic.access.model import Transport
from holdfast.logic.access.render import CREDENTIAL_BLANK, Client, Format, fill, skeleton
from holdfast.logic.access.render.deep_links import deep_links
from holdfast.logic.access.render.headers import etag, face_headers, matches, userinfo
from holdfast.logic.access.render.links import encode, link
from holdfast.logic.access.render.negotiate import client_of
from holdfast.logic.access.render.notice import NOBODY, shown
from holdfast.logic.access.subscription import (
    Endpoint,
    SubscriptionState,
    SubscriptionView,
    Usage,
)

CREDENTIAL = "5783a3e7-e373-51cd-8642-c83782b807c5"
GRPC = Client(Format.V2RAY, xhttp=False)
URI = re.compile(r"^[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*$")
"""What java.net.URI lets pass; anything else drops the line in v2rayNG."""
ODD = "Wien 1 + ü|=&#%/?"


def body(client: Client, of: SubscriptionView | None = None) -> bytes:
    seen = shown(of or view(), client)
    if seen.credential != NOBODY:
        seen = msgspec.structs.replace(seen, credential=CREDENTIAL_BLANK)
    return fill(skeleton(seen, client), CREDENTIAL)


def v2rayng(line: str) -> dict[str, str]:
    """What v2rayNG makes of a line."""
    assert URI.fullmatch(line), "java.net.URI throws"
    assert line.startswith("vless://"), "the scheme is case-sensitive"
    user, _, rest = line.removeprefix("vless://").partition("@")
    where, _, rest = rest.partition("?")
    query, _, name = rest.partition("#")
    host, _, port = where.rpartition(":")
    assert ":" not in host or (host[0], host[-1]) == ("[", "]")
    assert query, "an empty query is null"
    found = {"uuid": user, "host": host, "port": port, "name": unquote(name)}
    for pair in query.split("&"):
        assert "=" in pair
        key, value = pair.split("=")[:2]  # only the first two parts are kept
        assert key not in found, "duplicate key"
        found[key] = unquote(value)  # `+` stays a plus
    assert found["security"] in ("tls", "reality")
    assert "allowInsecure" not in found, "removed from Xray 26.7"
    return found


# --- Links ---------------------------------------------------------------------------------------
def test_links_are_exactly_these() -> None:
    expected = (
        f"vless://{CREDENTIAL}@192.0.2.1:443?encryption=none&security=tls&type=grpc"
        "&serviceName=api.v2.rpc.0000000000000000&mode=gun&sni=edge.example.net&fp=chrome&alpn=h2"
        "#eu%201%20grpc",
        f"vless://{CREDENTIAL}@[2001:db8::1]:443?encryption=none&security=tls&type=grpc"
        "&serviceName=api.v2.rpc.0000000000000000&mode=gun&sni=edge.example.net&fp=chrome&alpn=h2"
        "#eu%202%20grpc",
        f"vless://{CREDENTIAL}@192.0.2.1:443?encryption=none&security=tls&type=xhttp"
        "&path=%2Fassets%2F0000000000000000%2F&mode=stream-one&sni=edge.example.net&fp=chrome"
        "&alpn=h2#eu%201%20xhttp",
    )
    lines = body(Client(Format.LINKS)).decode().split("\n")
    assert tuple(lines[:3]) == expected
    assert len(lines) == 4


def test_v2rayng_reads_a_line_with_every_odd_letter() -> None:
    line = Endpoint(ODD, "a.example", 8443, "xn--bcher-kva.example", Transport.GRPC, ODD, "eu", "c")
    found = v2rayng(link(CREDENTIAL, line))
    assert (found["name"], found["serviceName"], found["port"]) == (ODD, ODD, "8443")
    assert encode("a b+c") == "a%20b%2Bc"


def test_control_what_urlencode_writes_would_be_read_as_something_else() -> None:
    """Marzban's quote_plus: the same parser must see the damage."""
    line = link(CREDENTIAL, view().endpoints[0]).replace("api.v2", "api+v2")
    assert v2rayng(line)["serviceName"].startswith("api+v2"), "a plus is no space"
    with pytest.raises(AssertionError, match="throws"):
        v2rayng(line + " x")


def test_base64_is_standard_padded_and_one_line() -> None:
    whole = body(Client(Format.V2RAY))
    assert base64.b64decode(whole, validate=True).decode().count("\n") == 3
    assert b"\n" not in whole
    assert len(whole) % 4 == 0
    assert base64.b64decode(whole) == body(Client(Format.LINKS))


# --- sing-box ------------------------------------------------------------------------------------
ALLOWED: dict[str, set[str]] = {
    "root": {"log", "dns", "inbounds", "outbounds", "route"},
    "vless": {
        "type", "tag", "server", "server_port", "uuid", "packet_encoding", "tls", "transport",
    },
    "selector": {"type", "tag", "outbounds", "default"},
    "urltest": {"type", "tag", "outbounds", "url"},
    "direct": {"type", "tag"},
    "tun": {"type", "tag", "address", "auto_route", "strict_route"},
}  # fmt: skip


def sing_box_113(data: bytes) -> dict[str, Any]:
    """DisallowUnknownFields, no tag twice, no word that 1.13 turned into an error."""
    found: dict[str, Any] = msgspec.json.decode(data)
    assert set(found) <= ALLOWED["root"]
    tags = [item["tag"] for item in found["outbounds"]]
    assert len(set(tags)) == len(tags), "duplicate tag"
    for item in found["outbounds"] + found["inbounds"]:
        assert set(item) <= ALLOWED[item["type"]], "unknown or legacy field"
        assert set(item.get("outbounds", ())) <= set(tags)
    for server in found["dns"]["servers"]:
        assert "address" not in server, "legacy DNS server"
    assert all("action" in rule or "outbound" in rule for rule in found["route"]["rules"])
    assert found["route"]["default_domain_resolver"]
    return found


def test_a_current_sing_box_takes_its_profile() -> None:
    found = sing_box_113(body(Client(Format.SING_BOX, xhttp=False)))
    vless = [item for item in found["outbounds"] if item["type"] == "vless"]
    assert vless[1] == {
        "type": "vless",
        "tag": "eu 2 grpc",
        "server": "2001:db8::1",
        "server_port": 443,
        "uuid": CREDENTIAL,
        "packet_encoding": "xudp",
        "tls": {
            "enabled": True,
            "server_name": "edge.example.net",
            "alpn": ["h2"],
            "utls": {"enabled": True, "fingerprint": "chrome"},
        },
        "transport": {"type": "grpc", "service_name": "api.v2.rpc.0000000000000000"},
    }
    assert len(vless) == 2, "sing-box speaks no XHTTP"


def test_an_old_sing_box_gets_its_own_words_and_a_new_one_refuses_them() -> None:
    old = body(Client(Format.SING_BOX, sing_box_legacy=True, xhttp=False))
    found = msgspec.json.decode(old)
    assert found["inbounds"][0]["sniff"]
    assert found["outbounds"][-1] == {"type": "dns", "tag": "dns-out"}
    assert all("address" in server for server in found["dns"]["servers"])
    with pytest.raises((AssertionError, KeyError)):  # control: the checker sees what 1.13 would
        sing_box_113(old)


# --- mihomo --------------------------------------------------------------------------------------
MIHOMO = f"""mixed-port: 7890
mode: rule
log-level: warning
proxies:
  - name: "eu 1 grpc"
    type: vless
    server: "192.0.2.1"
    port: 443
    uuid: "{CREDENTIAL}"
    network: grpc
    tls: true
    udp: true
    servername: "edge.example.net"
    client-fingerprint: "chrome"
    alpn: ["h2"]
    packet-encoding: xudp
    grpc-opts:
      grpc-service-name: "api.v2.rpc.0000000000000000"
  - name: "eu 2 grpc"
    type: vless
    server: "2001:db8::1"
    port: 443
    uuid: "{CREDENTIAL}"
    network: grpc
    tls: true
    udp: true
    servername: "edge.example.net"
    client-fingerprint: "chrome"
    alpn: ["h2"]
    packet-encoding: xudp
    grpc-opts:
      grpc-service-name: "api.v2.rpc.0000000000000000"
proxy-groups:
  - name: "proxy"
    type: select
    proxies: ["auto","eu 1 grpc","eu 2 grpc"]
  - name: "auto"
    type: url-test
    proxies: ["eu 1 grpc","eu 2 grpc"]
    url: "https://www.gstatic.com/generate_204"
    interval: 300
rules:
  - "MATCH,proxy"
"""


def test_mihomo_gets_exactly_this() -> None:
    assert body(Client(Format.MIHOMO, xhttp=False)).decode() == MIHOMO


def test_a_name_cannot_leave_its_line_of_yaml() -> None:
    evil = 'a": b\n  - name: "x'
    lines = tuple(msgspec.structs.replace(e, name=evil) for e in view().endpoints[:1])
    text = body(GRPC_MIHOMO, msgspec.structs.replace(view(), endpoints=lines)).decode()
    assert text.count("\n  - name:") == 3
    assert '\\n  - name: \\"x' in text


GRPC_MIHOMO = Client(Format.MIHOMO, xhttp=False)


# --- Xray, Outline -------------------------------------------------------------------------------
def test_v2rayng_takes_the_xray_configuration_for_a_custom_one() -> None:
    found = msgspec.json.decode(body(Client(Format.XRAY_JSON)))
    assert {"inbounds", "outbounds", "routing", "remarks"} <= set(found)
    assert found["outbounds"][0]["settings"]["id"] == CREDENTIAL


def test_outline_is_told_why_there_is_nothing_for_it() -> None:
    error = msgspec.json.decode(body(Client(Format.OUTLINE, xhttp=False)))["error"]
    assert "VLESS" in error["message"]
    gone = msgspec.structs.replace(view(), state=SubscriptionState.EXPIRED)
    error = msgspec.json.decode(body(Client(Format.OUTLINE, xhttp=False), gone))["error"]
    assert error["message"].startswith("Expired")


# --- Who is not served ---------------------------------------------------------------------------
@pytest.mark.parametrize("state", [s for s in SubscriptionState if s is not s.ACTIVE])
def test_who_is_not_served_gets_one_server_that_leads_nowhere(state: SubscriptionState) -> None:
    """v2rayNG takes an empty list for a failure and keeps what it had."""
    gone = msgspec.structs.replace(view(), state=state, endpoints=())
    for format in (Format.V2RAY, Format.LINKS):
        text = body(Client(format), gone)
        text = base64.b64decode(text) if format is Format.V2RAY else text
        found = v2rayng(text.decode())
        assert (found["host"], found["uuid"]) == ("127.0.0.1", NOBODY)
    found = msgspec.json.decode(body(Client(Format.SING_BOX, xhttp=False), gone))
    assert [o["server"] for o in found["outbounds"] if o["type"] == "vless"] == ["127.0.0.1"]
    assert '"127.0.0.1"' in body(GRPC_MIHOMO, gone).decode()


# --- Headers -------------------------------------------------------------------------------------
def hiddify(headers: list[tuple[str, str]], info: str) -> dict[str, Any]:
    """profile_parser.dart: `split('=').second` for every part, `int.parse`, a quoted file name."""
    names = [name for name, _ in headers]
    assert len(set(names)) == len(names), "a repeated header is not a String"
    assert all(v.isascii() and name == name.lower() for name, v in headers)
    said = dict(headers)
    parts = {p.split("=")[0].strip(): p.split("=")[1] for p in info.split(";")}
    assert set(parts) == {"upload", "download", "total", "expire"}
    name = re.search(r'filename="([^"]*)"', said["content-disposition"])
    assert name is not None
    title = base64.b64decode(said["profile-title"].removeprefix("base64:"), validate=True).decode()
    return {"hours": int(said["profile-update-interval"]), "title": title, "file": name[1], **parts}


def test_hiddify_reads_every_header() -> None:
    info = userinfo(Usage(5, 1024), 107_374_182_400, 1_767_225_600)
    assert info == "upload=5; download=1024; total=107374182400; expire=1767225600"
    headers = face_headers("Сеть друзей", 1, "https://a.example/p", "", Client(Format.V2RAY))
    found = hiddify(headers, info)
    assert (found["title"], found["hours"], found["file"]) == ("Сеть друзей", 1, "subscription.txt")
    with pytest.raises(IndexError):  # control: the trailing semicolon that it dies of
        hiddify(headers, info + ";")


def test_validators() -> None:
    tag = etag(b"a")
    assert tag != etag(b"b")
    assert matches(tag, tag)
    assert matches(f'"x", W/{tag}', tag)
    assert matches("*", tag)
    assert not matches('"x"', tag)


# --- Who asks ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("user_agent", "accept", "format"),
    [
        ("Mozilla/5.0", "text/html,*/*", Format.HTML),
        ("v2rayNG/1.10.2", "*/*", Format.V2RAY),
        ("HiddifyNext/2.5.7 (android) like ClashMeta v2ray sing-box", "*/*", Format.V2RAY),
        ("clash.meta/v1.19.0", "", Format.MIHOMO),
        ("mihomo/1.19.2", "", Format.MIHOMO),
        ("FlClash/v0.8", "", Format.MIHOMO),
        ("clash-verge/v2.3.1", "", Format.MIHOMO),
        ("ClashX Meta/1.4", "", Format.MIHOMO),
        ("Stash/2.5", "", Format.MIHOMO),
        ("SFA/1.12.4 (Build 5; sing-box 1.12.4; language en)", "", Format.SING_BOX),
        ("SFI/1.11.0", "", Format.SING_BOX),
        ("Karing/1.0", "", Format.SING_BOX),
        ("sing-box 1.13.0", "", Format.SING_BOX),
        ("Outline/1.14", "", Format.OUTLINE),
        ("not a clash of anything", "", Format.V2RAY),
        ("my-sfa-app", "", Format.V2RAY),
        ("", "", Format.V2RAY),
    ],
)
def test_a_client_is_known_by_its_name(user_agent: str, accept: str, format: Format) -> None:
    assert client_of(None, accept, user_agent).format is format


def test_versions_and_what_they_may_see() -> None:
    for agent, legacy in (
        ("SFI/1.11.0", True),
        ("SFA/1.99 (sing-box 1.11.4)", True),
        ("SFA/1.12.4", False),
        ("sing-box 1.13.0", False),
        ("Karing/1.0", False),
    ):
        assert client_of(None, "", agent).sing_box_legacy is legacy, agent
    assert client_of(None, "", "v2rayNG/1.10").xhttp
    assert not client_of(None, "", "HiddifyNext/2").xhttp, "an unknown type fails its import"
    assert client_of(Format.LINKS, "text/html", "clash").format is Format.LINKS


def test_deep_links_hold_the_whole_url() -> None:
    found = dict(deep_links("https://s.example/sub/abc", "A B"))
    assert found["sing-box"] == (
        "sing-box://import-remote-profile?url=https%3A%2F%2Fs.example%2Fsub%2Fabc#A%20B"
    )
    assert found["Hiddify"] == "hiddify://import/https://s.example/sub/abc#A%20B"
