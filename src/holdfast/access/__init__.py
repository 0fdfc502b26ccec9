"""Entries and cores: Xray and Envoy as child processes, told what to do by headquarters (D35)."""
