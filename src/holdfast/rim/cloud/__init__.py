"""Clouds: what HQ may order from a hosting provider, and who provides it."""
