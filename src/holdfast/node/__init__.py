"""The agent on every server: joins, renews, runs the role, reports (D8, D25, seed 004 §5)."""
