"""The node agent: joins, renews, runs its roles as child processes, reports."""
