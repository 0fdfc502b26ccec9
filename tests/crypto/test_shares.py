"""Cards of an offline ceremony: any k of n, no fewer, none forged."""

from __future__ import annotations

import itertools

import pytest
import shamir_mnemonic

from holdfast.crypto.shares import join, parse_plan, split
from holdfast.errors import UsageError

SECRET = bytes(range(32))


def test_any_two_of_three_and_no_one_alone() -> None:
    cards = split(SECRET, 2, 3)
    assert len(cards) == 3
    assert all(len(card.split()) == 33 for card in cards)
    for chosen in itertools.permutations(cards, 2):
        assert join(chosen) == SECRET
    assert join(cards) == SECRET
    assert join([card.upper() + "\n" for card in cards[:2]]) == SECRET
    for card in cards:
        with pytest.raises(UsageError, match="2 different cards"):
            join([card])
        with pytest.raises(UsageError, match="2 different cards"):
            join([card, f" {card} "])


def test_other_plans() -> None:
    cards = split(SECRET, 3, 5)
    for chosen in itertools.combinations(cards, 3):
        assert join(chosen) == SECRET
    with pytest.raises(UsageError):
        join(cards[:2])


def test_cards_of_two_ceremonies_do_not_mix() -> None:
    first, second = split(SECRET, 2, 3), split(SECRET, 2, 3)
    assert first != second, "the library draws its own randomness"
    with pytest.raises(UsageError, match="belong together"):
        join([first[0], second[1]])


def test_a_wrong_word_is_found() -> None:
    cards = split(SECRET, 2, 3)
    words = cards[0].split()
    words[10] = "academic" if words[10] != "academic" else "acid"
    for bad in (" ".join(words), " ".join(words[:-1]), "hello", ""):
        with pytest.raises(UsageError, match="card"):
            join([bad, cards[1]])
    with pytest.raises(UsageError):
        join([])


def test_another_tool_of_the_standard_joins_the_cards() -> None:
    assert shamir_mnemonic.combine_mnemonics(split(SECRET, 2, 3)[:2]) == SECRET


def test_cards_of_something_shorter_are_refused() -> None:
    (cards,) = shamir_mnemonic.generate_mnemonics(1, [(2, 3)], bytes(16))
    with pytest.raises(UsageError, match="something else"):
        join(cards[:2])


def test_plans() -> None:
    assert parse_plan("2of3") == (2, 3)
    assert parse_plan("3OF5") == (3, 5)
    for bad in ("", "2", "of3", "1of3", "3of2", "2of17", "-2of3", "2of3of4"):
        with pytest.raises(UsageError):
            parse_plan(bad)
