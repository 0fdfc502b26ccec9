"""The fleet: who holds which seat, who is alive, what to spawn, move and retire."""
