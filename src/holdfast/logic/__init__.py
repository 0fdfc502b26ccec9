"""Pure decisions: no I/O, no clock, no randomness. May import `crypto.pure` and msgspec only."""
