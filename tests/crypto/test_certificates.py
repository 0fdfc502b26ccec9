"""Roots and members: which chains are believed and which are not (D6; seed 004 §11.1).

The refusals are named attacks: each builds the certificate that a stolen intermediate, a stolen
leaf or a foreign root could build, and checks that nobody believes it.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.crypto.certificates import (
    BACKDATE_S,
    Authority,
    NodeName,
    TlsKey,
    cert_info,
    create_root,
    csr_spki,
    fingerprint,
    from_pem,
    issue_intermediate,
    issue_leaf,
    make_csr,
    parse_uri,
    sign_intermediate,
    to_pem,
    verify_chain,
    verify_hq_proof,
)
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import sha256
from holdfast.crypto.tlskey import load_spki
from holdfast.errors import PeerFault, UsageError
from holdfast.limits import INTERMEDIATE_DAYS, NODE_CERT_DAYS, ROOT_DAYS

NOW = 1_800_000_000.0
DAY_S = 86_400
NETWORK = bytes(range(16))
OTHER = bytes(range(16, 32))
DOMAIN = "kelp.test"
HQ = SigningKey(b"h" * 32)
NODE = SigningKey(b"n" * 32).node
ROOT = create_root(b"r" * 32, NETWORK, DOMAIN, NOW)
INTERMEDIATE = issue_intermediate(ROOT, TlsKey.from_bytes(b"i" * 32), NETWORK, HQ.public, NOW)
LEAF_KEY = TlsKey.from_bytes(b"l" * 32)


def leaf(ca: Authority = INTERMEDIATE, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "spki": LEAF_KEY.spki(),
        "network": NETWORK,
        "role": "relay",
        "node": NODE,
        "dns_name": f"relay-eu-001.{DOMAIN}",
        "serial": 7,
        "now": NOW,
        "days": NODE_CERT_DAYS,
    }
    return issue_leaf(ca, **(fields | changes))  # type: ignore[arg-type]


def refused(chain: list[bytes], roots: list[bytes] | None = None, now: float = NOW) -> str:
    with pytest.raises(PeerFault) as caught:
        verify_chain([ROOT.certificate] if roots is None else roots, chain, now)
    assert caught.value.code == "certificate"
    return str(caught.value)


def test_a_chain_names_its_node() -> None:
    name = verify_chain([ROOT.certificate], [leaf(), INTERMEDIATE.certificate], NOW)
    assert name == NodeName(NETWORK, "relay", NODE)


def test_what_a_leaf_says() -> None:
    info = cert_info(leaf())
    assert info.serial == "7"
    assert info.not_before == NOW - BACKDATE_S
    assert info.not_after == NOW + NODE_CERT_DAYS * DAY_S
    assert info.spki == LEAF_KEY.spki()
    assert info.dns == "relay-eu-001.kelp.test"
    assert not info.authority
    usage = x509.load_der_x509_certificate(leaf()).extensions.get_extension_for_class(
        x509.ExtendedKeyUsage
    )
    assert {item.dotted_string for item in usage.value} == {
        "1.3.6.1.5.5.7.3.1",
        "1.3.6.1.5.5.7.3.2",
    }


def test_lives_of_root_and_intermediate() -> None:
    root, intermediate = cert_info(ROOT.certificate), cert_info(INTERMEDIATE.certificate)
    assert root.not_after - NOW == ROOT_DAYS * DAY_S
    assert intermediate.not_after - NOW == INTERMEDIATE_DAYS * DAY_S
    assert intermediate.name == NodeName(NETWORK, "hq", HQ.node)
    assert root.name == NodeName(NETWORK, "root", b"")
    assert root.domain == intermediate.domain == DOMAIN


def test_the_same_seed_and_time_give_the_same_certificates() -> None:
    again = create_root(b"r" * 32, NETWORK, DOMAIN, NOW)
    assert again.certificate == ROOT.certificate
    assert leaf() == leaf()
    assert make_csr(LEAF_KEY) == make_csr(LEAF_KEY)
    assert create_root(b"s" * 32, NETWORK, DOMAIN, NOW).certificate != ROOT.certificate


def test_a_key_survives_pem_and_hides_its_secret() -> None:
    assert TlsKey.from_pem(LEAF_KEY.pem()).spki() == LEAF_KEY.spki()
    assert repr(LEAF_KEY).startswith("TlsKey(spki=")
    with pytest.raises(UsageError):
        TlsKey.from_pem(b"nothing")
    foreign = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(UsageError):
        TlsKey.from_pem(foreign)


def test_a_request_proves_its_key() -> None:
    csr = make_csr(LEAF_KEY)
    assert csr_spki(csr) == LEAF_KEY.spki()
    broken = csr[:-1] + bytes((csr[-1] ^ 1,))
    with pytest.raises(PeerFault):
        csr_spki(broken)
    with pytest.raises(PeerFault):
        csr_spki(b"")
    with pytest.raises(PeerFault):
        csr_spki(bytes(100_000))


def test_a_request_with_another_kind_of_key_is_refused() -> None:
    for private in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        algorithm = hashes.SHA256() if isinstance(private, ec.EllipticCurvePrivateKey) else None
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        der = builder.sign(private, algorithm).public_bytes(serialization.Encoding.DER)
        with pytest.raises(PeerFault):
            csr_spki(der)


def test_roots_are_a_set() -> None:
    """Rollover: the old and the new root are both believed until one is taken off the list."""
    second = create_root(b"2" * 32, NETWORK, DOMAIN, NOW)
    new = issue_intermediate(second, TlsKey.from_bytes(b"j" * 32), NETWORK, HQ.public, NOW)
    old_chain = [leaf(), INTERMEDIATE.certificate]
    new_chain = [leaf(new), new.certificate]
    both = [ROOT.certificate, second.certificate]
    assert verify_chain(both, old_chain, NOW) == verify_chain(both, new_chain, NOW)
    refused(new_chain)
    refused(old_chain, [second.certificate])


def test_the_two_roots_of_a_rollover_may_share_everything_but_the_key() -> None:
    second = create_root(b"2" * 32, NETWORK, DOMAIN, NOW)
    assert fingerprint(second.certificate) != fingerprint(ROOT.certificate)
    subject = x509.load_der_x509_certificate(second.certificate).subject
    assert subject == x509.load_der_x509_certificate(ROOT.certificate).subject


def test_a_foreign_root_is_refused() -> None:
    evil = create_root(b"e" * 32, NETWORK, DOMAIN, NOW)
    ca = issue_intermediate(evil, TlsKey.from_bytes(b"f" * 32), NETWORK, HQ.public, NOW)
    refused([leaf(ca), ca.certificate])
    refused([leaf(ca), INTERMEDIATE.certificate])
    refused([leaf(), ca.certificate])


def test_a_subject_that_is_no_text_is_refused() -> None:
    """Found by the fuzzer: the verifier wants to name the subject of a leaf with another fault,
    and parses it as late as that."""
    good, client_auth = leaf(), bytes.fromhex("2b06010505070302")
    subject = x509.load_der_x509_certificate(good).subject.public_bytes()
    bad = good.replace(subject, subject[:-6] + b"\xdd\xff\xff\xff\xffm")
    bad = bad.replace(client_auth, bytes.fromhex("2b06010507070302"))
    assert len(bad) == len(good)
    assert "asn1" in refused([bad, INTERMEDIATE.certificate])


def test_no_roots_no_trust() -> None:
    refused([leaf(), INTERMEDIATE.certificate], roots=[])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_chain_is_exactly_two(length: int) -> None:
    refused([leaf(), INTERMEDIATE.certificate, ROOT.certificate][:length])


def test_a_leaf_signed_by_the_root_itself_is_refused() -> None:
    direct = leaf(ROOT)
    refused([direct, INTERMEDIATE.certificate])
    refused([direct, ROOT.certificate])


def test_a_leaf_signs_no_leaf() -> None:
    """A stolen node key is worth one node: sub-CA attempts die on the CA flag."""
    node = Authority(leaf(), LEAF_KEY)
    forged = leaf(node, spki=TlsKey.from_bytes(b"x" * 32).spki(), serial=8)
    refused([forged, node.certificate])


def test_an_intermediate_makes_no_intermediate() -> None:
    """Path length 0: a stolen intermediate cannot be multiplied."""
    sub = sign_sub_authority()
    refused([leaf(sub), sub.certificate])


def sign_sub_authority() -> Authority:
    """What `sign_intermediate` would not do: an intermediate under an intermediate."""
    key = TlsKey.from_bytes(b"y" * 32)
    der = sign_intermediate(
        ROOT, spki=key.spki(), network=NETWORK, identity_public=HQ.public, now=NOW
    )
    mould = x509.load_der_x509_certificate(der)
    parent = x509.load_der_x509_certificate(INTERMEDIATE.certificate)
    builder = rebuild(mould, issuer=parent.subject)
    return Authority(INTERMEDIATE.key.sign_certificate(builder), key)


def rebuild(
    mould: x509.Certificate,
    *,
    issuer: x509.Name | None = None,
    without: tuple[type[x509.ExtensionType], ...] = (),
    extra: tuple[x509.ExtensionType, ...] = (),
) -> x509.CertificateBuilder:
    """The certificate again, with some things changed, for forging."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(mould.subject)
        .issuer_name(issuer or mould.issuer)
        .public_key(mould.public_key())
        .serial_number(mould.serial_number)
        .not_valid_before(mould.not_valid_before_utc)
        .not_valid_after(mould.not_valid_after_utc)
    )
    skipped = (*without, *(type(item) for item in extra), x509.AuthorityKeyIdentifier)
    for extension in mould.extensions:
        if not isinstance(extension.value, skipped):
            builder = builder.add_extension(extension.value, extension.critical)
    for value in extra:
        builder = builder.add_extension(value, False)
    return builder


def forged_leaf(
    *extra: x509.ExtensionType, without: tuple[type[x509.ExtensionType], ...] = ()
) -> bytes:
    mould = x509.load_der_x509_certificate(leaf())
    authority = x509.AuthorityKeyIdentifier(
        x509.SubjectKeyIdentifier.from_public_key(load_spki(INTERMEDIATE.key.spki())).digest,
        None,
        None,
    )
    builder = rebuild(mould, without=without, extra=extra).add_extension(authority, False)
    return INTERMEDIATE.key.sign_certificate(builder)


def test_the_forger_can_rebuild_a_good_leaf() -> None:
    """Positive control of the refusals below."""
    assert verify_chain([ROOT.certificate], [forged_leaf(), INTERMEDIATE.certificate], NOW)


def names(*values: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(values)


URI = x509.UniformResourceIdentifier(NodeName(NETWORK, "relay", NODE).uri())
DNS = x509.DNSName(f"relay-eu-001.{DOMAIN}")


@pytest.mark.parametrize(
    "alternative",
    [
        names(DNS),
        names(URI),
        names(DNS, URI, URI),
        names(DNS, DNS, URI),
        names(DNS, URI, x509.RFC822Name("a@kelp.test")),
        names(DNS, x509.UniformResourceIdentifier("https://kelp.test/")),
        names(DNS, x509.UniformResourceIdentifier(NodeName(NETWORK, "root", b"").uri())),
        names(DNS, x509.UniformResourceIdentifier(NodeName(OTHER, "relay", NODE).uri())),
        names(DNS, x509.UniformResourceIdentifier(URI.value + "/x")),
        names(DNS, x509.UniformResourceIdentifier(URI.value.upper())),
        names(x509.DNSName("relay-eu-001.elsewhere.test"), URI),
        names(x509.DNSName("relay-eu-001.notkelp.test"), URI),
        names(x509.DNSName(DOMAIN), URI),
    ],
)
def test_names_outside_the_rules_are_refused(alternative: x509.SubjectAlternativeName) -> None:
    refused([forged_leaf(alternative), INTERMEDIATE.certificate])


def test_usage_outside_the_rules_is_refused() -> None:
    server_only = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    refused([forged_leaf(server_only), INTERMEDIATE.certificate])
    refused([forged_leaf(without=(x509.BasicConstraints,)), INTERMEDIATE.certificate])
    refused([forged_leaf(without=(x509.SubjectAlternativeName,)), INTERMEDIATE.certificate])


def test_an_intermediate_of_another_network_is_refused() -> None:
    """One root never serves two networks, even if its holder is talked into signing for one."""
    mould = x509.load_der_x509_certificate(INTERMEDIATE.certificate)
    uri = x509.UniformResourceIdentifier(NodeName(OTHER, "hq", HQ.node).uri())
    der = ROOT.key.sign_certificate(rebuild(mould, extra=(names(uri),)))
    ca = Authority(der, INTERMEDIATE.key)
    refused([leaf(ca, network=OTHER), der])
    refused([leaf(ca), der])
    with pytest.raises(PeerFault):
        verify_hq_proof([ROOT.certificate], der, HQ.public, NOW)


@pytest.mark.parametrize(
    ("now", "good"),
    [
        (NOW - BACKDATE_S - 1, False),
        (NOW - BACKDATE_S, True),
        (NOW + NODE_CERT_DAYS * DAY_S, True),
        (NOW + NODE_CERT_DAYS * DAY_S + 1, False),
        (NOW + INTERMEDIATE_DAYS * DAY_S + 1, False),
    ],
)
def test_validity_to_the_second(now: float, good: bool) -> None:
    """A clock an hour behind the issuer's still joins; one second past the end does not."""
    chain = [leaf(), INTERMEDIATE.certificate]
    if good:
        assert verify_chain([ROOT.certificate], chain, now)
    else:
        refused(chain, now=now)


def test_a_long_leaf_dies_with_its_intermediate_and_its_root() -> None:
    chain = [leaf(days=ROOT_DAYS * 2), INTERMEDIATE.certificate]
    refused(chain, now=NOW + INTERMEDIATE_DAYS * DAY_S + 1)
    late = issue_intermediate(
        ROOT, INTERMEDIATE.key, NETWORK, HQ.public, NOW + (ROOT_DAYS - 1) * DAY_S
    )
    chain = [leaf(late, now=NOW + (ROOT_DAYS - 1) * DAY_S), late.certificate]
    refused(chain, now=NOW + ROOT_DAYS * DAY_S + 1)
    with pytest.raises(PeerFault):
        verify_hq_proof(
            [ROOT.certificate], late.certificate, HQ.public, NOW + ROOT_DAYS * DAY_S + 1
        )


def test_the_proof_of_an_hq() -> None:
    roots = [ROOT.certificate]
    verify_hq_proof(roots, INTERMEDIATE.certificate, HQ.public, NOW)
    stranger = SigningKey(b"z" * 32)
    hq_leaf = leaf(role="hq", node=HQ.node, dns_name=f"hq.{DOMAIN}")
    for proof, signer, now in [
        (INTERMEDIATE.certificate, stranger.public, NOW),
        (hq_leaf, HQ.public, NOW),
        (ROOT.certificate, HQ.public, NOW),
        (sign_sub_authority().certificate, HQ.public, NOW),
        (INTERMEDIATE.certificate, HQ.public, NOW + INTERMEDIATE_DAYS * DAY_S + 1),
        (INTERMEDIATE.certificate, HQ.public, NOW - BACKDATE_S - 1),
    ]:
        with pytest.raises(PeerFault):
            verify_hq_proof(roots, proof, signer, now)
    with pytest.raises(PeerFault):
        verify_hq_proof([], INTERMEDIATE.certificate, HQ.public, NOW)


def test_a_bad_pin_is_the_operators_error() -> None:
    with pytest.raises(UsageError):
        verify_chain([b"junk"], [leaf(), INTERMEDIATE.certificate], NOW)
    with pytest.raises(UsageError):
        verify_chain([INTERMEDIATE.certificate], [leaf(), INTERMEDIATE.certificate], NOW)


@pytest.mark.parametrize("domain", ["", "Kelp.test", "kelp..test", "-a.test", "a b", "x" * 300])
def test_a_bad_domain_is_the_operators_error(domain: str) -> None:
    with pytest.raises(UsageError):
        create_root(b"r" * 32, NETWORK, domain, NOW)


def test_malleated_signatures_change_no_identity() -> None:
    """Nebula CVE-2026-25793: (r, s) and (r, n - s) both verify, so the file hash names nothing."""
    original = leaf()
    certificate = x509.load_der_x509_certificate(original)
    r, s = decode_dss_signature(certificate.signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = encode_dss_signature(r, order - s)
    malleated = reassemble(original, certificate.tbs_certificate_bytes, twin)
    assert malleated != original
    assert verify_chain([ROOT.certificate], [malleated, INTERMEDIATE.certificate], NOW)
    before, after = cert_info(original), cert_info(malleated)
    assert (before.serial, before.spki, before.name) == (after.serial, after.spki, after.name)


def reassemble(der: bytes, tbs: bytes, signature: bytes) -> bytes:
    algorithm_start = der.index(tbs) + len(tbs)
    algorithm = der[algorithm_start : algorithm_start + 2 + der[algorithm_start + 1]]
    bits = b"\x03" + bytes((len(signature) + 1, 0)) + signature
    body = tbs + algorithm + bits
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(leaf()) - 1), flip=st.integers(1, 255))
def test_no_changed_byte_gives_another_identity(position: int, flip: int) -> None:
    """A changed leaf is refused, or (malleable signature bytes) still names the same node."""
    original = leaf()
    changed = bytearray(original)
    changed[position] ^= flip
    try:
        name = verify_chain([ROOT.certificate], [bytes(changed), INTERMEDIATE.certificate], NOW)
    except PeerFault:
        return
    info = cert_info(bytes(changed))
    assert name == NodeName(NETWORK, "relay", NODE)
    assert (info.serial, info.spki) == ("7", LEAF_KEY.spki())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000))
def test_garbage_is_a_peer_fault(data: bytes) -> None:
    for call in (cert_info, csr_spki, from_pem):
        with pytest.raises(PeerFault):
            call(data)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))
def test_uris_have_one_spelling(network: bytes, node: bytes) -> None:
    name = NodeName(network, "relay", node)
    assert parse_uri(name.uri()) == name
    assert parse_uri(name.uri() + " ") is None
    # 52 base32 letters carry 260 bits: the last four must be zero, or one node has 16 names.
    last = "bcdefgh"[node[0] % 7]
    assert parse_uri(name.uri()[:-1] + last) is None


def test_pem_round_trip() -> None:
    chain = (leaf(), INTERMEDIATE.certificate)
    assert from_pem(to_pem(chain)) == chain


def test_dates_are_utc() -> None:
    certificate = x509.load_der_x509_certificate(leaf())
    assert certificate.not_valid_before_utc == datetime.fromtimestamp(NOW - BACKDATE_S, tz=UTC)


def test_certificates_are_frozen() -> None:
    """The same seeds and times give these very bytes, in every version and on every machine."""
    made = (ROOT.certificate, INTERMEDIATE.certificate, leaf())
    assert [sha256(der).hex() for der in made] == [
        "7cd3739532ca7f75021c687536ddc4ebd1f5c2dbabd341a5c33c6f5c9f8ca57f",
        "e4541ee03b4f02f7c87b11019a8c6a544d5bdc4f937614f0a3f78e1a51bbb213",
        "dcf82a2d5d6f743aa281976a792a341ddacb979491760aa01af23b64ccfa7922",
    ]
