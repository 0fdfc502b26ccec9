"""Hostile input, faults and judges: what tries to break the rest."""
