"""Holdfast: a network that people who trust each other only in part run together and never lose."""

__version__ = "0.1.0"
