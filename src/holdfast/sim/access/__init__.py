"""The access layer on real processes: ground for drills, benches and system tests."""
