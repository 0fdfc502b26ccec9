"""Drills: one fault or one malice each, played on real processes and judged from outside."""
