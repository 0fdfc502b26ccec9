"""The pool as a client decides about it: fan-out, failover, cursors, fetching. All pure."""
