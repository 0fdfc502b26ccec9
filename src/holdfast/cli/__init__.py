"""Verbs a person types, and the only place where services, rim and pages are put together."""
