"""Headquarters: allocates, watches, heals; reads nothing."""
