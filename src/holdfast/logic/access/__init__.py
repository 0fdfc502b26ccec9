"""The access layer's decisions: cells, path epochs, choice of core, usage (seeds 000, 001)."""
