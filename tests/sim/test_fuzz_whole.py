"""No decoder is forgotten: whatever is named like one is fuzzed, or stands here with a reason."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import holdfast
from holdfast.sim.decoder import Decoder
from holdfast.sim.decoders import decoders
from holdfast.sim.fuzz import SLOW_S, fuzz_one

ROOT = Path(holdfast.__file__).parent
NAMED = re.compile(r"^_?((parse|decode|unpack|unseal)(_\w+)?|(load|from|import)_\w+)$")
ELSEWHERE = {"sim", "cli", "web"}
"""Rooms that take nothing from outside but a person's command line or a browser's request."""
EXCEPTIONS = {
    "crypto.phrase.Phrase.from_entropy": "makes words; takes 16 or 32 bytes of our own",
    "crypto.sealedfile.unseal": "scrypt: a second of work for each guess is what it is for",
    "crypto.tlskey.TlsKey.from_bytes": "makes a key; takes a seed of our own",
    "device.agent.Agent._from_pool": "moves blobs; decodes nothing",
    "hq.config.load_config": "a file's bytes for parse_config",
    "hq.restore.load_rows": "takes a snapshot that was decoded",
    "hq.restore.load_store": "takes a snapshot that was decoded",
    "logic.group.members.parse": "takes an operation that was decoded; its entries are fuzzed",
    "rim.archive.unpack_archive": "behind a signed hash; its bad archives: tests/wire/test_release",
    "rim.control.etcd_gateway._decode": "our own store's answers, msgspec alone, over mutual TLS",
    "rim.store.recovery.load_heads": "behind a hash that is looked at before anything else",
    "rim.tls.Credentials.from_pem": "our own chain and key, for OpenSSL",
    "rim.tls.Credentials.from_files": "our own chain and key, for OpenSSL",
    "wire.bech32._from_fives": "the inside of decode_line",
    "wire.peers.from_bytes": "another name of unpack_signed",
    "wire.faults.from_reply": "takes a reply that was decoded",
}


def _functions() -> Iterator[str]:
    """`module.function` or `module.Class.function`, below `holdfast`."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in ELSEWHERE:
            continue
        for node in ast.parse(path.read_text()).body:
            inside = node.body if isinstance(node, ast.ClassDef) else [node]
            prefix = (*parts, node.name) if isinstance(node, ast.ClassDef) else parts
            for item in inside:
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield ".".join((*prefix, item.name))


def test_whatever_is_named_like_a_decoder_is_fuzzed() -> None:
    named = {name for name in _functions() if NAMED.match(name.rpartition(".")[2])}
    covered = {name for decoder in decoders() for name in decoder.covers}
    assert len(named) > 40
    assert sorted(named - covered - EXCEPTIONS.keys()) == [], "list it in sim.decoders, or here"
    assert sorted(EXCEPTIONS.keys() - named) == [], "an exception for what is no more"


def test_what_decoders_say_they_cover_is_there() -> None:
    for decoder in decoders():
        for name in decoder.covers:
            module, _, function = name.rpartition(".")
            if module.rpartition(".")[2].lstrip("_")[:1].isupper():
                module, _, owner = module.rpartition(".")
                found = getattr(importlib.import_module(f"holdfast.{module}"), owner)
            else:
                found = importlib.import_module(f"holdfast.{module}")
            assert callable(getattr(found, function)), (decoder.name, name)


def test_positive_control_a_slow_decoder_is_found_and_a_sleeping_one_is_not() -> None:
    """CPU time of the thread: a machine that does something else accuses nobody."""

    def spins(data: bytes) -> object:
        total = 0
        for number in range(20_000_000):
            total += number
        return total

    assert fuzz_one(Decoder("spins", spins, (b"x",)), 1, 1).slow == 1

    def sleeps(data: bytes) -> object:
        return time.sleep(SLOW_S * 1.2)

    assert fuzz_one(Decoder("sleeps", sleeps, (b"x",)), 1, 1).slow == 0
