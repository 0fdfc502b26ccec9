"""Relay and blind replica: one program, two retention policies. Holds what it cannot read."""
