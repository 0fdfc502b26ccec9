"""The page of a subscription, for a browser: state, usage, QR code, links that open an app.

No script, no picture, nothing from elsewhere; English and Russian by Accept-Language. The URL is
the page's own: whoever sees the page has the subscription already.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Final

from holdfast.logic.access.render.deep_links import deep_links
from holdfast.logic.access.subscription import SubscriptionState, Usage
from holdfast.wire.qr import qr_svg_exact

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:34rem;padding:0 1rem;"
    "color:#1b1f24;background:#fff}svg{width:15rem;height:auto;display:block;margin:1rem 0;"
    "background:#fff}a{color:#0b57d0}code{overflow-wrap:anywhere}li{margin:.4rem 0}"
    ".state{font-weight:600}dt{color:#57606a}dd{margin:0 0 .6rem}"
    "@media(prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}a{color:#79b8ff}"
    "dt{color:#9198a1}}"
)
_EN: Final[Mapping[str, str]] = {
    "active": "Active",
    "expired": "Expired: ask for a new term",
    "over-quota": "Quota used up",
    "suspended": "Suspended: ask your operator",
    "revoked": "No longer valid: ask your operator",
    "elsewhere": "This link belongs to another device",
    "used": "Used",
    "of": "of",
    "unlimited": "no limit",
    "until": "Valid until",
    "ever": "no end",
    "devices": "Devices",
    "scan": "Scan this with the app on your phone:",
    "open": "Or open it on this device:",
    "copy": "Or copy the link:",
}
_RU: Final[Mapping[str, str]] = {
    "active": "Активна",
    "expired": "Срок истёк: попросите продлить",
    "over-quota": "Лимит трафика исчерпан",
    "suspended": "Приостановлена: обратитесь к оператору",
    "revoked": "Больше не действует: обратитесь к оператору",
    "elsewhere": "Эта ссылка принадлежит другому устройству",
    "used": "Использовано",
    "of": "из",
    "unlimited": "без ограничения",
    "until": "Действует до",
    "ever": "бессрочно",
    "devices": "Устройства",
    "scan": "Отсканируйте код приложением на телефоне:",
    "open": "Или откройте на этом устройстве:",
    "copy": "Или скопируйте ссылку:",
}


def page(
    *,
    title: str,
    url: str,
    state: SubscriptionState,
    elsewhere: bool,
    usage: Usage,
    quota_bytes: int,
    expires_at: int,
    devices: int,
    devices_max: int,
    language: str,
) -> str:
    """The whole page. `url` is the subscription's; volumes are bytes, times Unix seconds."""
    russian = language.lower().startswith("ru")
    words = _RU if russian else _EN
    served = state is SubscriptionState.ACTIVE and not elsewhere
    quota = amount(quota_bytes) if quota_bytes else words["unlimited"]
    until = f"{day(expires_at)} UTC" if expires_at else words["ever"]
    name = escape(title)
    facts = (
        (words["used"], f"{amount(usage.total)} {words['of']} {quota}"),
        (words["until"], until),
        (words["devices"], f"{devices} / {devices_max}"),
    )
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    said = words["elsewhere" if elsewhere else state.value]
    return (
        f'<!doctype html><html lang="{"ru" if russian else "en"}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{name}</title><style>{_STYLE}</style></head><body><h1>{name}</h1>"
        f'<p class="state">{escape(said)}</p><dl>{listed}</dl>'
        f"{_ways(url, title, words) if served else ''}</body></html>"
    )


def _ways(url: str, title: str, words: Mapping[str, str]) -> str:
    """How to get it into an app."""
    items = "".join(
        f'<li><a href="{escape(link)}">{escape(app)}</a></li>'
        for app, link in deep_links(url, title)
    )
    return (
        f"<p>{words['scan']}</p>{qr_svg_exact(url)}<p>{words['open']}</p><ul>{items}</ul>"
        f"<p>{words['copy']}</p><p><code>{escape(url)}</code></p>"
    )


def amount(count: int) -> str:
    """Bytes for people, decimal as providers count them."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def day(at: int) -> str:
    """A date, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
