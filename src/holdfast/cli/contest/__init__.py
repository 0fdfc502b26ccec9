"""`bench folder`: a tree's first sync, ours beside Syncthing and restic, under the same rules."""
