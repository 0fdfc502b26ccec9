"""The root ceremony, as an operator types it (D6, foundation §2)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.crypto.age_reader import open_with_identity, open_with_passphrase

from holdfast.cli.main import run
from holdfast.cli.root import create_embedded, open_embedded
from holdfast.crypto.certificates import TlsKey, cert_info, from_pem, make_csr, verify_hq_proof
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import base32, sha256
from holdfast.crypto.rootset import only_roots, trusted_roots
from holdfast.errors import UsageError
from holdfast.limits import INTERMEDIATE_DAYS
from holdfast.rim import rootfiles
from holdfast.rim.entropy import SeededEntropy
from holdfast.wire.ceremony import make_request

HQ = SigningKey(b"h" * 32)
HQ_KEY = TlsKey.from_bytes(b"t" * 32)
DAY_S = 86_400


def holdfast(capsys: pytest.CaptureFixture[str], *words: str | Path, status: int = 0) -> Any:
    """Run a command with --json; its object."""
    assert run([*(str(word) for word in words), "--json"]) == status
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def with_cards(directory: Path, *numbers: int) -> list[str]:
    return [f"--card={directory / f'card-{number}.txt'}" for number in numbers]


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A root on 2-of-3 cards."""
    out = tmp_path / "root"
    holdfast(capsys, "root", "create", "--out", out, "--shares=2of3", "--domain=kelp.test")
    return out


def request_file(tmp_path: Path, root: Path) -> Path:
    name = cert_info(from_pem((root / "root.crt").read_bytes())[0]).name
    assert name is not None
    path = tmp_path / "request.txt"
    path.write_text(f"{make_request(name.network, HQ, make_csr(HQ_KEY))}\n")
    return path


def test_create_on_cards(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = holdfast(capsys, "root", "show", "--root", made)
    (root,) = from_pem((made / "root.crt").read_bytes())
    assert shown["roots"][0]["fingerprint"] == sha256(root).hex()
    assert shown["roots"][0]["domain"] == "kelp.test"
    files = {path.name: path.stat().st_mode & 0o777 for path in made.iterdir()}
    assert files == {"root.crt": 0o644, **{f"card-{n}.txt": 0o600 for n in (1, 2, 3)}}
    assert made.stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE" not in (made / "root.crt").read_bytes()
    for number in (1, 2, 3):
        assert sha256(root).hex() in (made / f"card-{number}.txt").read_text()


def test_two_roots_are_never_alike(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    second = holdfast(capsys, "root", "create", "--out", other, "--shares=2of3")
    first = holdfast(capsys, "root", "show", "--root", made)["roots"][0]
    assert second["fingerprint"] != first["fingerprint"]
    assert second["network"] != first["network"]


def test_issue_an_intermediate_with_any_two_cards(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_file(tmp_path, made)
    (root,) = from_pem((made / "root.crt").read_bytes())
    for pair in ((1, 2), (3, 1)):
        out = tmp_path / f"hq-{pair[0]}.pem"
        words = ("root", "issue-intermediate", "--root", made, "--hq-request", request)
        record = holdfast(capsys, *words, "--out", out, *with_cards(made, *pair))
        (certificate,) = from_pem(out.read_bytes())
        verify_hq_proof([root], certificate, HQ.public, time.time())
        info = cert_info(certificate)
        assert info.spki == HQ_KEY.spki()
        assert record["identity"] == base32(HQ.node)
        assert record["serial"] == info.serial
        assert info.not_after - info.not_before == INTERMEDIATE_DAYS * DAY_S + 3600


def test_the_next_intermediate_can_be_signed_ahead(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """D6: the next one pre-signed and sealed."""
    request, out = request_file(tmp_path, made), tmp_path / "next.pem"
    words = ("root", "issue-intermediate", "--root", made, "--hq-request", request, "--out", out)
    record = holdfast(capsys, *words, "--starts-in-days=500", *with_cards(made, 1, 2))
    assert abs(record["not_before"] - (time.time() + 500 * DAY_S - 3600)) < 60
    holdfast(capsys, *words, "--starts-in-days=-1", *with_cards(made, 1, 2), status=2)


def test_a_request_of_another_network_or_damaged_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "request.txt", tmp_path / "hq.pem"
    line = str(make_request(b"o" * 16, HQ, make_csr(HQ_KEY)))
    words = ("root", "issue-intermediate", "--root", made, "--hq-request", path, "--out", out)
    holdfast(capsys, *words, *with_cards(made, 1, 2), status=2)
    for text in (line, line[:-1] + "q", "", "hfjoin1xyz"):
        path.write_text(text)
        holdfast(capsys, *words, *with_cards(made, 1, 2), status=3)
    assert not out.exists()


def test_a_root_does_not_open_without_its_secret(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_file(tmp_path, made)
    words = ("root", "issue-intermediate", "--root", made, "--hq-request", request)
    out = tmp_path / "hq.pem"
    other = tmp_path / "other"
    holdfast(capsys, "root", "create", "--out", other, "--shares=2of3")
    for secret in (
        with_cards(made, 1),
        with_cards(made, 1, 1),
        with_cards(other, 1, 2),
        [*with_cards(made, 1), *with_cards(other, 2)],
        [f"--card={tmp_path / 'nowhere'}"],
        [],
        [f"--passphrase-file={made / 'card-1.txt'}"],
    ):
        holdfast(capsys, *words, "--out", out, *secret, status=2)
    assert not out.exists()


def test_create_refuses_to_overwrite_and_to_be_careless(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = tmp_path / "weak"
    weak.write_text("short\n")
    out = tmp_path / "new"
    before = (made / "root.crt").read_bytes()
    holdfast(capsys, "root", "create", "--out", made, "--shares=2of3", status=2)
    assert (made / "root.crt").read_bytes() == before
    for careless in (
        [f"--passphrase-file={weak}"],
        [f"--passphrase-file={tmp_path / 'nowhere'}"],
        [f"--passphrase-file={weak}", "--shares=2of3"],
        ["--shares=1of3"],
        ["--shares=2of3", "--domain=No Domain"],
    ):
        holdfast(capsys, "root", "create", "--out", out, *careless, status=2)
        assert not out.exists()


def test_rollover_from_first_to_last_step(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Second root in the set, nodes follow the link, the first root is dropped."""
    second = tmp_path / "second"
    words = ("root", "rollover", "--root", made, "--out", second, "--shares=2of3")
    record = holdfast(capsys, *words, *with_cards(made, 2, 3))
    (old, new) = only_roots(from_pem((made / "root.crt").read_bytes()))
    assert sha256(new).hex() == record["fingerprint"]
    offered = from_pem((second / "root.crt").read_bytes())
    assert only_roots(offered) == (new, old)
    assert set(trusted_roots([old], offered, time.time())) == {old, new}
    kinds = [row["kind"] for row in holdfast(capsys, "root", "show", "--root", second)["roots"]]
    assert sorted(kinds) == ["link", "root", "root"]
    request, out = request_file(tmp_path, second), tmp_path / "hq.pem"
    issue = ("root", "issue-intermediate", "--root", second, "--hq-request", request)
    holdfast(capsys, *issue, "--out", out, *with_cards(second, 1, 3))
    verify_hq_proof([new], from_pem(out.read_bytes())[0], HQ.public, time.time())
    drop = ("root", "drop", "--root", second)
    holdfast(capsys, *drop, f"--fingerprint={sha256(new).hex()}", status=2)
    holdfast(capsys, *drop, f"--fingerprint={'00' * 32}", status=2)
    holdfast(capsys, *drop, "--fingerprint=what", status=2)
    left = holdfast(capsys, *drop, f"--fingerprint={sha256(old).hex()}")["roots"]
    assert [row["kind"] for row in left] == ["root", "link"]
    after = from_pem((second / "root.crt").read_bytes())
    assert trusted_roots([old], after, time.time()) == (new,), "a sleeper still follows"


def test_an_embedded_root_opens_with_the_key_beside_it_and_with_stock_age(tmp_path: Path) -> None:
    network = bytes(range(16))
    root = create_embedded(
        tmp_path / "root", network=network, domain="up.test", now=1e9, entropy=SeededEntropy(1)
    )
    again = open_embedded(tmp_path / "root")
    assert again.certificate == root.certificate
    assert again.key.spki() == root.key.spki()
    identity = (tmp_path / "root" / "root.identity").read_text().splitlines()[1]
    pem = open_with_identity((tmp_path / "root" / "root.age").read_bytes(), identity)
    assert TlsKey.from_pem(pem).spki() == root.key.spki()
    with pytest.raises(UsageError):
        open_embedded(tmp_path / "nowhere")
    (tmp_path / "root" / "root.crt").write_bytes(b"junk")
    with pytest.raises(UsageError):
        open_embedded(tmp_path / "root")


def test_a_key_of_another_root_is_noticed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        create_embedded(
            tmp_path / name,
            network=bytes(16),
            domain="up.test",
            now=1e9,
            entropy=SeededEntropy(seed),
        )
    for name in ("root.age", "root.identity"):
        (tmp_path / "a" / name).write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(UsageError, match="not the key"):
        rootfiles.open_root(tmp_path / "a")


@pytest.mark.system
def test_create_under_a_passphrase_and_issue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\nsecond line is ignored\n")
    out, secret = tmp_path / "root", f"--passphrase-file={passphrase}"
    record = holdfast(capsys, "root", "create", "--out", out, secret)
    assert record["files"] == ["root.age", "root.crt"]
    pem = open_with_passphrase((out / "root.age").read_bytes(), "correct horse battery staple")
    (root,) = from_pem((out / "root.crt").read_bytes())
    assert TlsKey.from_pem(pem).spki() == cert_info(root).spki
    request = request_file(tmp_path, out)
    words = ("root", "issue-intermediate", "--root", out, "--hq-request", request)
    holdfast(capsys, *words, "--out", tmp_path / "hq.pem", secret)
    passphrase.write_text("correct horse battery stable\n")
    holdfast(capsys, *words, "--out", tmp_path / "no.pem", secret, status=2)
    holdfast(capsys, *words, "--out", tmp_path / "no.pem", status=2)
