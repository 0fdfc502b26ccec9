"""How headquarters gets into etcd. Apart from the client, which needs `holdfast[etcd]`."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from holdfast.errors import UsageError


class EtcdAccess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the members are (`host:port`), and the files that open them. No files: no TLS."""

    endpoints: tuple[str, ...]
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def context(self, base: Path) -> ssl.SSLContext | None:
        """TLS 1.2 or newer to etcd's own authority. Raises UsageError when a file will not do."""
        if not self.endpoints:
            raise UsageError("name at least one etcd member: host:port")
        if not self.ca_file:
            return None
        try:
            context = ssl.create_default_context(cafile=str(base / self.ca_file))
            if self.cert_file:
                context.load_cert_chain(base / self.cert_file, base / self.key_file)
        except OSError as error:  # ssl.SSLError is one
            raise UsageError(f"etcd's certificates in {base}: {error}") from error
        return context
