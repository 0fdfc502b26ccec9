"""Drills that need a whole network on this machine."""
