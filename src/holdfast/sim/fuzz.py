"""Fuzzing every decoder: counts what crashed and what was slow, by name.

A *crash* is any outcome but a value or the refusal that the decoder promises (`PeerFault`, or for
what a person writes `UsageError`). *Slow* is more than `SLOW_S` of this thread's own CPU time on
one input, which no input of the lengths made here can excuse; time in which the machine did
something else accuses nobody. Work is split over processes by decoder; a finding is named by
decoder, seed and number, and the input itself is kept.

`planted` is the positive control: a decoder with a bug of the usual kind (it trusts a length). A
campaign that does not find it has been blind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

import msgspec

from holdfast.rim.usage import cpu_s, thread_cpu_s
from holdfast.sim.decoder import Decoder
from holdfast.sim.decoders import decoders
from holdfast.sim.mutate import Mutator

SLOW_S: Final = 0.25
"""CPU seconds: two hundred times what the slowest decoder needs for such inputs."""
FINDINGS_MAX: Final = 10
BATCH: Final = 50_000


class Finding(msgspec.Struct, frozen=True):
    """One input that broke the contract."""

    decoder: str
    seed: int
    number: int
    what: str
    data: str
    """Hex."""


class Outcome(msgspec.Struct, frozen=True):
    """What one decoder did with `inputs` bad inputs."""

    decoder: str
    inputs: int
    accepted: int
    crashes: int
    slow: int
    cpu_s: float
    """Of making the inputs and decoding them."""
    findings: tuple[Finding, ...]


def fuzz_one(decoder: Decoder, seed: int, inputs: int) -> Outcome:
    """Feed `inputs` mutations to one decoder."""
    mutator, began = Mutator(decoder.corpus, seed), cpu_s()
    accepted = crashes = slow = 0
    findings: list[Finding] = []
    for number in range(inputs):
        data = mutator.next()
        started = thread_cpu_s()
        what = ""
        try:
            decoder.decode(data)
            accepted += 1
        except decoder.refuses:
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            crashes += 1
            what = f"{type(error).__name__}: {error}"[:200]
        spent = thread_cpu_s() - started
        if spent > SLOW_S:
            slow += 1
            what = what or f"slow: {spent:.2f} s"
        if what and len(findings) < FINDINGS_MAX:
            findings.append(Finding(decoder.name, seed, number, what, data.hex()))
    spent = cpu_s() - began
    return Outcome(decoder.name, inputs, accepted, crashes, slow, spent, tuple(findings))


def planted() -> Decoder:
    """A frame decoder that believes the length field: it must be found."""

    def decode(data: bytes) -> object:
        size = int.from_bytes(data[:4], "big")
        return data[4 : 4 + size][size - 1]

    return Decoder("planted", decode, ((5).to_bytes(4, "big") + b"hello",))


def _fuzz_named(name: str, seed: int, inputs: int) -> Outcome:
    decoder = next(decoder for decoder in decoders() if decoder.name == name)
    return fuzz_one(decoder, seed, inputs)


def _nobody(done: int, crashes: int) -> None:
    """Progress that nobody looks at."""


def campaign(
    inputs: int, seed: int, workers: int, progress: Callable[[int, int], None] = _nobody
) -> Sequence[Outcome]:
    """Spread `inputs` evenly over all decoders and `workers` processes; outcomes by decoder.
    `progress` is told the inputs and findings so far."""
    names = [decoder.name for decoder in decoders()]
    share = -(-inputs // len(names))
    totals: dict[str, Outcome] = {}
    with ProcessPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(_fuzz_named, name, seed + at, min(BATCH, share - at))
            for at in range(0, share, BATCH)
            for name in names
        ]
        for job in as_completed(jobs):
            outcome = job.result()
            totals[outcome.decoder] = _merge(totals.get(outcome.decoder), outcome)
            so_far = totals.values()
            progress(sum(o.inputs for o in so_far), sum(o.crashes + o.slow for o in so_far))
    return [totals[name] for name in names]


def _merge(left: Outcome | None, right: Outcome) -> Outcome:
    if left is None:
        return right
    return Outcome(
        right.decoder,
        left.inputs + right.inputs,
        left.accepted + right.accepted,
        left.crashes + right.crashes,
        left.slow + right.slow,
        left.cpu_s + right.cpu_s,
        (left.findings + right.findings)[:FINDINGS_MAX],
    )
