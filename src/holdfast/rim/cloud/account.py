"""One account at a hosting provider, as it is configured, and what is asked of each kind."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Final

import msgspec

from holdfast.errors import UsageError

TOKEN_FILE: Final = "/etc/holdfast/join-token"
"""Where a machine's image looks for its one-time token."""
TOKEN_VARIABLE: Final = "HOLDFAST_JOIN_TOKEN"
"""Where a container's does."""
DRIVERS: Final = frozenset({"ec2"})
"""Those of libcloud's drivers that the conformance suite runs against."""


class Kind(StrEnum):
    """Who is at the other end."""

    PROCESS = "process"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"
    HCLOUD = "hcloud"
    LIBCLOUD = "libcloud"


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`endpoint` is the API's address; `key_file` holds its key and nothing else (seed 004 §5.4).

    | kind       | endpoint                       | key                | image, size, driver      |
    |------------|--------------------------------|--------------------|--------------------------|
    | process    | host:port                      | bearer key         |                          |
    | docker     | unix:///path, http(s)://host   | none, or empty     | image                    |
    | kubernetes | https://host                   | bearer token       | image                    |
    | hcloud     | https://host/v1, empty: theirs | API token          | image, size              |
    | libcloud   | https://host, empty: theirs    | id:secret          | image, size, driver      |
    """

    name: str
    endpoint: str
    key_file: str
    regions: tuple[str, ...]
    kind: Kind = Kind.PROCESS
    image: str = ""
    size: str = ""
    driver: str = ""
    """libcloud's word for the provider; one of `DRIVERS`."""
    ca_file: str = ""
    """Of kubernetes: PEM of whoever signed the API's certificate; the system's when empty."""
    places: dict[str, str] = {}
    """Region -> what the provider calls it; its own name where not listed."""

    def place(self, region: str) -> str:
        """What the provider calls a region. Raises UsageError for one it has not."""
        if region not in self.regions:
            have = ", ".join(self.regions)
            raise UsageError(f"{self.name} has no region {region!r}; there are {have}")
        return self.places.get(region, region)

    def check(self) -> None:
        """Raises UsageError for what a kind lacks."""
        needs = {
            Kind.PROCESS: ("endpoint",),
            Kind.DOCKER: ("endpoint", "image"),
            Kind.KUBERNETES: ("endpoint", "image"),
            Kind.HCLOUD: ("image", "size"),
            Kind.LIBCLOUD: ("image", "size", "driver"),
        }
        for field in needs[self.kind]:
            if not getattr(self, field):
                raise UsageError(f"provider {self.name}: a {self.kind} account needs {field}")
        if self.kind is Kind.LIBCLOUD and self.driver not in DRIVERS:
            have = ", ".join(sorted(DRIVERS))
            raise UsageError(f"provider {self.name}: no driver {self.driver!r}; there is {have}")


def cloud_init(token: str) -> str:
    """User data that puts a join token where the image looks for it, and nothing else."""
    return (
        "#cloud-config\n"
        "write_files:\n"
        f"  - path: {TOKEN_FILE}\n"
        '    permissions: "0600"\n'
        f"    content: {json.dumps(token)}\n"
    )
