"""Pods as machines, through lightkube: one pod and one secret for each server.

The secret holds the join token and nothing else; the pod mounts it where an image looks for it. A
pod's name is the intent's id, so the API server itself refuses a second one. Pods are not restarted
elsewhere by a controller: headquarters decides what is replaced, and a lost pod is a lost machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Final

import httpx2
import msgspec
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, Context, User
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import (
    Capabilities,
    Container,
    EmptyDirVolumeSource,
    KeyToPath,
    PodSpec,
    SeccompProfile,
    SecretVolumeSource,
    SecurityContext,
    Volume,
    VolumeMount,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod, Secret

from holdfast.errors import OperationFault, UsageError
from holdfast.rim.cloud.account import TOKEN_FILE, Account
from holdfast.wire.cloud import CreateServer, Server

NETWORK_LABEL: Final = "holdfast.net/network"
REGION_LABEL: Final = "holdfast.net/region"
NAMESPACE: Final = "holdfast"
STATE: Final = "/var/lib/holdfast"
"""Where an image keeps its keys and its disk."""
_ZONE_LABEL: Final = "topology.kubernetes.io/region"
_OVER: Final = frozenset({"Succeeded", "Failed"})
_TIMEOUT_S: Final = 30.0
_FAULTS: Final = (ApiError, httpx2.HTTPError, msgspec.MsgspecError, ValueError, LookupError)
"""The last two for what is no API server at all: the library trips over it."""


class KubernetesCloud:
    """A `Cloud` in the namespace `holdfast` of one cluster."""

    def __init__(self, account: Account, network: str, key: Callable[[], str]) -> None:
        self._account = account
        self._network = network
        self._key = key

    async def create(self, request: CreateServer) -> Server:
        """Make the secret, then the pod. Raises UsageError when the name is taken,
        OperationFault."""
        place = self._account.place(request.region)
        name = request.name.lower()
        meta = ObjectMeta(
            name=name,
            namespace=NAMESPACE,
            labels={NETWORK_LABEL: self._network, REGION_LABEL: request.region},
        )
        client = self._client()
        try:
            secret = Secret(metadata=meta, stringData={"token": request.user_data})
            if not any(server.name == name for server in await self.list()):
                await self._forget(client, name)  # of an order that was cut off before its pod
            try:
                await client.create(secret)
            except ApiError as error:
                if error.status.code != 409:
                    raise
            pod = await client.create(Pod(metadata=meta, spec=self._spec(name, place)))
        except _FAULTS as error:
            raise self._fault(error, f"order of {name}") from error
        finally:
            await client.close()
        return _server(pod)

    def _spec(self, name: str, place: str) -> PodSpec:
        folder = str(PurePosixPath(TOKEN_FILE).parent)
        files = [KeyToPath(key="token", path=PurePosixPath(TOKEN_FILE).name, mode=0o400)]
        return PodSpec(
            automountServiceAccountToken=False,
            enableServiceLinks=False,
            nodeSelector={_ZONE_LABEL: place} if place else None,
            restartPolicy="Always",
            volumes=[
                Volume(name="token", secret=SecretVolumeSource(secretName=name, items=files)),
                Volume(name="state", emptyDir=EmptyDirVolumeSource()),  # outlives a restart
            ],
            containers=[
                Container(
                    name="node",
                    image=self._account.image,
                    volumeMounts=[
                        VolumeMount(name="token", mountPath=folder, readOnly=True),
                        VolumeMount(name="state", mountPath=STATE),
                    ],
                    securityContext=SecurityContext(
                        allowPrivilegeEscalation=False,
                        runAsNonRoot=True,
                        capabilities=Capabilities(drop=["ALL"]),
                        seccompProfile=SeccompProfile(type="RuntimeDefault"),
                    ),
                )
            ],
        )

    async def list(self) -> tuple[Server, ...]:
        """Every pod with our label."""
        client = self._client()
        try:
            labels = {NETWORK_LABEL: self._network}
            found = client.list(Pod, namespace=NAMESPACE, labels=labels)
            return tuple([_server(pod) async for pod in found])
        except _FAULTS as error:
            raise self._fault(error, "list") from error
        finally:
            await client.close()

    async def delete(self, name: str) -> None:
        """Remove the pod and its secret; what does not exist is no error."""
        ours = any(server.name == name.lower() for server in await self.list())
        client = self._client()
        try:
            if ours:
                await client.delete(Pod, name.lower(), namespace=NAMESPACE)
            await self._forget(client, name.lower())
        except _FAULTS as error:
            raise self._fault(error, f"deletion of {name}") from error
        finally:
            await client.close()

    async def _forget(self, client: Any, name: str) -> None:
        """Remove the secret of a name, if it is ours; there may be one without a pod."""
        try:
            secret = await client.get(Secret, name, namespace=NAMESPACE)
            if (secret.metadata.labels or {}).get(NETWORK_LABEL) == self._network:
                await client.delete(Secret, name, namespace=NAMESPACE)
        except ApiError as error:
            if error.status.code != 404:
                raise

    def _client(self) -> Any:
        account = self._account
        cluster = Cluster(server=account.endpoint, certificate_auth=account.ca_file or None)
        config = KubeConfig(
            clusters={"c": cluster},
            contexts={"c": Context(cluster="c", user="u", namespace=NAMESPACE)},
            users={"u": User(token=self._key())},
            current_context="c",
        )
        return AsyncClient(config=config, timeout=httpx2.Timeout(_TIMEOUT_S), trust_env=False)

    def _fault(self, error: Exception, what: str) -> Exception:
        text = f"{self._account.name}: {what} failed: {error}"[:300]
        if isinstance(error, ApiError) and error.status.code == 409:
            return UsageError(f"the cluster has a pod called so already ({what})")
        if isinstance(error, ApiError) and 400 <= (error.status.code or 500) < 429:
            return UsageError(text)
        return OperationFault(text)


def _server(pod: Pod) -> Server:
    assert pod.metadata is not None, "an API server names what it lists"
    status = pod.status
    phase = (status.phase if status else "") or ""
    ended = phase in _OVER or pod.metadata.deletionTimestamp is not None
    created = pod.metadata.creationTimestamp
    return Server(
        name=pod.metadata.name or "",
        region=(pod.metadata.labels or {}).get(REGION_LABEL, ""),
        address=(status.podIP if status else "") or "",
        state="gone" if ended else "running",
        created_at=created.timestamp() if created else 0.0,
    )
