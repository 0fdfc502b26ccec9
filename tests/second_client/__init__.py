"""A second client, written from PROTOCOL.md and its byte vectors alone.

It shares no code with Holdfast and may not import it: it stands for the stranger who reads the page
and builds a client. Its tests run it in a virtual environment of its own.
"""
