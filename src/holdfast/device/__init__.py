"""A person's device: keys, groups, and folders kept in sync."""
