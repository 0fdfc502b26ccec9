"""`holdfast drill join-race`."""

from __future__ import annotations

from holdfast.cli.drills.play import Keep, play
from holdfast.errors import UsageError
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.sim.drills.join_race import JoinRace


def join_race(
    *, tokens: int = 1_000, clients: int = 16, seed: int = 1, keep: Keep = None, json: bool = False
) -> int:
    """Many nodes race for each join token at two headquarters on one store.

    Parameters
    ----------
    tokens
        How many races.
    clients
        Racers in each, every one with an identity of its own.
    seed
        Who asks which process, in which order.
    json
        One JSON object as the last line.
    """
    if tokens < 1 or clients < 2:
        raise UsageError("a race needs a token and two clients")
    clock, entropy = SystemClock(), SystemEntropy()
    return play(
        "join-race",
        lambda home: JoinRace(home, clock, entropy, seed).run(tokens, clients),
        keep=keep,
        json=json,
    )
