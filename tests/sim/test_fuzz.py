"""The fuzzer finds what is planted, and the decoders hold (reference: seed 004 §9.1)."""

from __future__ import annotations

import pytest

from holdfast.sim.decoder import Decoder
from holdfast.sim.decoders import decoders
from holdfast.sim.fuzz import fuzz_one, planted


@pytest.mark.parametrize("decoder", decoders(), ids=lambda decoder: decoder.name)
def test_decoder_takes_its_own_corpus(decoder: Decoder) -> None:
    for data in decoder.corpus:
        decoder.decode(data)


@pytest.mark.parametrize("decoder", decoders(), ids=lambda decoder: decoder.name)
def test_decoder_survives_bad_input(decoder: Decoder) -> None:
    outcome = fuzz_one(decoder, seed=7, inputs=1_000)
    assert outcome.findings == ()
    assert outcome.accepted < outcome.inputs, "mutations that are all valid test nothing"


def test_positive_control_a_planted_bug_is_found() -> None:
    outcome = fuzz_one(planted(), seed=7, inputs=1_000)
    assert outcome.crashes > 0
    assert outcome.findings[0].data, "a finding names the input that made it"


def test_a_finding_can_be_made_again() -> None:
    first = fuzz_one(planted(), seed=9, inputs=500)
    again = fuzz_one(planted(), seed=9, inputs=500)
    assert first.findings == again.findings != ()
