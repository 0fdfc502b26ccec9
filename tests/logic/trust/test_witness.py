"""One witness is enough to see that a log has two faces (issue 4 §6; D4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import PeerFault
from holdfast.logic.effects import Effects
from holdfast.logic.trust.checkpoint import Checkpoint
from holdfast.logic.trust.merkle import Tree
from holdfast.logic.trust.witness import Accuse, Cosign, Seen, Witness

ORIGIN = "kelp.test/log/00"


def log(size: int, forked_at: int | None = None) -> Tree:
    """Leaves 0, 1, 2 and on; another one at `forked_at`."""
    return Tree(b"fork" if n == forked_at else str(n).encode() for n in range(size))


def offer(witness: Witness, tree: Tree, size: int, origin: str = ORIGIN) -> Effects:
    """What an HQ with this log answers: the checkpoint of `size` and its own honest best proof."""
    before = witness.seen.size
    proof = tree.consistency(before, size) if before <= size else ()
    return witness.offer(Checkpoint(origin, size, tree.root(size)), b"note", proof)


def test_a_log_that_grows_is_cosigned_after_the_memory_is_durable() -> None:
    witness, tree = Witness(ORIGIN, Seen()), log(20)
    for size in (1, 1, 2, 7, 8, 20):
        before = witness.seen
        effects = offer(witness, tree, size)
        (cosign,) = effects.send
        assert isinstance(cosign, Cosign)
        assert cosign.checkpoint.size == size
        assert bool(effects.persist) == (size > before.size)
        assert witness.seen.root == tree.root(size)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 39))
def test_no_fork_of_the_past_is_cosigned(seen: int, more: int, at: int) -> None:
    witness = Witness(ORIGIN, Seen())
    offer(witness, log(seen), seen)
    at %= seen
    effects = offer(witness, log(seen + more, forked_at=at), seen + more)
    (accuse,) = effects.send
    assert isinstance(accuse, Accuse)
    assert accuse.reason == "forked"
    assert not effects.persist
    assert [line.verb for line in effects.audit] == ["log-forked"]
    assert witness.seen.root == log(seen).root()


def test_a_shorter_log_is_refused_and_said_once() -> None:
    witness, tree = Witness(ORIGIN, Seen()), log(9)
    offer(witness, tree, 9)
    effects = offer(witness, tree, 8)
    (accuse,) = effects.send
    assert isinstance(accuse, Accuse)
    assert accuse.reason == "truncated"
    assert offer(witness, tree, 8) == Effects(), "each lie is reported once"
    assert offer(witness, log(12), 12).persist, "an honest log goes on being cosigned"


def test_after_a_restart_it_still_knows() -> None:
    first = Witness(ORIGIN, Seen())
    (seen,) = offer(first, log(9), 9).persist
    again = Witness(ORIGIN, seen)
    assert isinstance(offer(again, log(10, forked_at=3), 10).send[0], Accuse)
    amnesiac = Witness(ORIGIN, Seen())
    assert isinstance(offer(amnesiac, log(10, forked_at=3), 10).send[0], Cosign), (
        "control: without its memory the fork is cosigned"
    )


def test_another_log_is_none_of_its_business() -> None:
    witness = Witness(ORIGIN, Seen())
    with pytest.raises(PeerFault):
        offer(witness, log(3), 3, "evil.test/log/00")
    assert witness.seen == Seen()
