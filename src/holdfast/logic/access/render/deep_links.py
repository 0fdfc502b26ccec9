"""Links that open an app with the subscription already filled in."""

from __future__ import annotations

from holdfast.logic.access.render.links import encode


def deep_links(url: str, title: str) -> tuple[tuple[str, str], ...]:
    """(name of the app, link), for the subscription at `url`."""
    whole, name = encode(url), encode(title)
    return (
        ("Hiddify", f"hiddify://import/{url}#{name}"),
        ("v2rayNG", f"v2rayng://install-sub?url={whole}&name={name}"),
        ("sing-box", f"sing-box://import-remote-profile?url={whole}#{name}"),
        ("mihomo, Clash Verge, FlClash", f"clash://install-config?url={whole}&name={name}"),
    )
