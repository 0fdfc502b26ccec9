"""The cloud API of a process provider's daemon (D31): JSON over loopback HTTP, bearer key.

| method and path          | scope   | shape                                   |
|--------------------------|---------|-----------------------------------------|
| POST   /v1/servers       | servers | CreateServer -> Server (409 if name is) |
| GET    /v1/servers       | servers | -> ServerList                           |
| DELETE /v1/servers/{name}| servers | -> Server                               |
| GET    /v1/log           | log     | -> CloudLog                             |
| POST   /v1/keys          | keys    | KeyOrder -> KeyMade                     |
| GET    /v1/keys          | keys    | -> KeyList                              |
| DELETE /v1/keys/{id}     | keys    | -> KeyInfo                              |
| GET    /v1/key           | any     | -> KeyInfo: the one that asks           |

A key that is not known is 401, one whose scopes do not cover a call is 403. The account's own key
covers everything; headquarters is given one for `servers` alone (seed 004 §5.4).
"""

from __future__ import annotations

from typing import Final

from holdfast.wire.codec import Message

SERVERS: Final = "servers"
LOG: Final = "log"
KEYS: Final = "keys"
SCOPES: Final = (SERVERS, LOG, KEYS)


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


class KeyOrder(Message):
    """`note` is for people."""

    scopes: tuple[str, ...]
    note: str = ""


class KeyMade(Message):
    """`key` is shown once."""

    id: str
    key: str


class KeyInfo(Message):
    """`id` is empty for the account's own key."""

    id: str
    scopes: tuple[str, ...]
    made_at: float
    note: str = ""


class KeyList(Message):
    keys: tuple[KeyInfo, ...]
