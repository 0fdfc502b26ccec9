"""Root rollover: how a set of pinned roots grows, and who may make it grow.

A *link* is the new root's key, certified by the old root. The set that HQ hands out holds roots
(self-signed) and links; a node that has pinned the old root accepts the new one only through a
link, or through a chain of links if it slept through several rollovers. HQ carries the set but
cannot extend it: links are made where the old root's key is, at the offline ceremony. HQ may leave
a root out (that is how a rollover ends), never the last one that a node has pinned.

Only self-signed roots are ever trust anchors; links are evidence and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holdfast.crypto.certificates import (
    Authority,
    authority_extensions,
    builder_for,
    serial_for,
    with_key_ids,
)
from holdfast.crypto.certinfo import CertInfo, cert_info, is_self_signed, issued, read
from holdfast.errors import PeerFault, UsageError

ROOT_SET_MAX = 16
"""Roots and links in a set; a rollover adds two and later drops one or two."""


def link_roots(old: Authority, new_root: bytes, now: float) -> bytes:
    """The link (DER): `old` vouches for the key of `new_root`. Raises UsageError for a mismatch.

    It lasts as long as the old root, for nodes that were off for long.
    """
    before, after = cert_info(old.certificate), cert_info(new_root)
    if before.name != after.name or before.domain != after.domain:
        raise UsageError("the two roots belong to different networks or domains")
    if before.spki == after.spki:
        raise UsageError("the new root has the old root's key")
    assert after.name is not None
    days = (before.not_after - now) / 86_400
    builder = builder_for(
        after.spki, read(new_root).subject, now, days, serial=serial_for(after.spki, now)
    )
    builder = builder.issuer_name(read(old.certificate).subject)
    builder = authority_extensions(
        builder, path_length=1, domain=after.domain, uri=after.name.uri()
    )
    return old.key.sign_certificate(with_key_ids(builder, after.spki, before.spki))


def only_roots(items: Iterable[bytes]) -> tuple[bytes, ...]:
    """The self-signed certificates of a set, in order."""
    return tuple(item for item in items if is_self_signed(item))


def trusted_roots(
    pinned: Sequence[bytes], offered: Sequence[bytes], now: float
) -> tuple[bytes, ...]:
    """What to pin after HQ offered a set: its roots that are pinned already or linked to one.

    If nothing of the offer can be trusted, `pinned` stays. Raises PeerFault when the offer is no
    set of certificates.
    """
    if len(offered) > ROOT_SET_MAX:
        raise PeerFault(f"a root set of {len(offered)} certificates", code="too-large")
    infos = {der: cert_info(der) for der in offered}
    believed = [der for der in pinned if _is_root(cert_info(der))]
    links = [der for der, info in infos.items() if _is_root(info) and not is_self_signed(der)]
    grown = True
    while grown:
        found = [
            link
            for link in links
            if link not in believed and any(_vouches(issuer, link, now) for issuer in believed)
        ]
        believed.extend(found)
        grown = bool(found)
    kept = tuple(
        der
        for der in only_roots(offered)
        if der in pinned or any(_same_root(infos[der], cert_info(item)) for item in believed)
    )
    return kept or tuple(pinned)


def _vouches(issuer: bytes, link: bytes, now: float) -> bool:
    above, below = cert_info(issuer), cert_info(link)
    return (
        issued(issuer, link)
        and above.name == below.name
        and above.domain == below.domain
        and above.not_before <= now <= above.not_after
        and below.not_before <= now <= below.not_after
    )


def _same_root(root: CertInfo, link: CertInfo) -> bool:
    """Whether a link speaks of exactly this root: key, network and domain."""
    return (root.spki, root.name, root.domain) == (link.spki, link.name, link.domain)


def _is_root(info: CertInfo) -> bool:
    return info.authority and info.name is not None and info.name.role == "root"
