"""The cloud API of a process provider's daemon (D31): JSON over loopback HTTP, bearer key.

| method and path          | shape                                   |
|--------------------------|-----------------------------------------|
| POST   /v1/servers       | CreateServer -> Server (409 if name is) |
| GET    /v1/servers       | -> ServerList                           |
| DELETE /v1/servers/{name}| -> Server                               |
| GET    /v1/log           | -> CloudLog                             |
"""

from __future__ import annotations

from holdfast.wire.codec import Message


class CreateServer(Message):
    """`name` is the intent id; `user_data` carries one join token and nothing else."""

    name: str
    region: str
    user_data: str


class Server(Message):
    """`state` is running or gone."""

    name: str
    region: str
    address: str
    state: str
    created_at: float


class ServerList(Message):
    servers: tuple[Server, ...]


class CloudEvent(Message):
    """The provider's own account of what it was told and did."""

    at: float
    verb: str
    name: str


class CloudLog(Message):
    events: tuple[CloudEvent, ...]
