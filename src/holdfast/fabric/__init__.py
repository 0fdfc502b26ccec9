"""The pool seen from outside: sessions, fan-out, outbox, receipts, cursors, carrying logs."""
