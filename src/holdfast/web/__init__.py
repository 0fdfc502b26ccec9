"""Pages and their assets, where looking beats reading."""
