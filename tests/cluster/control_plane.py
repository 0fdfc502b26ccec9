"""A Kubernetes control plane on loopback, and workers that are played.

The API server, the controllers, the scheduler and etcd are the real ones; `bin/test-kubernetes`
builds them. A worker says what a kubelet tells the API server: that it is there, every second,
and how its pods are. No container runs.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx2
import lightkube
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, Context, User
from lightkube.core.exceptions import ApiError
from lightkube.models.coordination_v1 import LeaseSpec
from lightkube.models.core_v1 import NodeCondition, NodeStatus
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import Node, Pod
from lightkube.types import PatchType

from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port

LOST_S = 6
"""The controllers' patience with a silent worker; 40 seconds unless told otherwise."""
LEASES = "kube-node-lease"
START_S = 90.0


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


async def until(what: str, holds: Callable[[], Awaitable[bool]], wait_s: float = 60.0) -> None:
    """Wait until it holds; an API server that does not answer yet is no error."""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    if await holds():
                        return
                except (ApiError, httpx2.HTTPError):
                    pass
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"waited {wait_s:.0f} s for {what}") from None


class ControlPlane:
    """`start`, then `client()`; everything ends with `stop`."""

    def __init__(self, home: Path, programs: Path) -> None:
        self._home = home
        self._programs = programs
        self._children: list[asyncio.subprocess.Process] = []
        self._workers: list[Worker] = []
        self.admin = secrets.token_hex(16)
        self.endpoint = ""

    @property
    def ca(self) -> Path:
        """The certificate that the API server's own is signed by."""
        return self._home / "ca.pem"

    def client(self) -> Any:
        """lightkube's client, as the administrator."""
        cluster = Cluster(server=self.endpoint, certificate_auth=str(self.ca))
        config = KubeConfig(
            clusters={"c": cluster},
            contexts={"c": Context(cluster="c", user="u")},
            users={"u": User(token=self.admin)},
            current_context="c",
        )
        return lightkube.AsyncClient(config=config, trust_env=False)

    async def start(self) -> None:
        """Start the four; they serve when this returns."""
        entropy = SystemEntropy()
        ports = [free_port("127.0.0.1", entropy) for _ in range(5)]
        store, peers, api, controllers, scheduler = ports
        home = self._home
        home.mkdir(parents=True)
        self.endpoint = f"https://127.0.0.1:{api}"
        self._write_keys()
        await self._run(
            "etcd",
            [
                "etcd",
                f"--data-dir={home / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls=http://127.0.0.1:{store}",
                f"--advertise-client-urls=http://127.0.0.1:{store}",
                f"--listen-peer-urls=http://127.0.0.1:{peers}",
            ],
        )
        await self._run(
            "apiserver",
            [
                str(self._programs / "kube-apiserver"),
                f"--etcd-servers=http://127.0.0.1:{store}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                f"--secure-port={api}",
                f"--tls-cert-file={home / 'api.pem'}",
                f"--tls-private-key-file={home / 'api.key'}",
                f"--token-auth-file={home / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={home / 'accounts.key'}",
                f"--service-account-signing-key-file={home / 'accounts.key'}",
                "--service-cluster-ip-range=10.96.0.0/16",
            ],
        )
        shared = [f"--kubeconfig={home / 'kubeconfig'}", "--leader-elect=false"]
        shared += ["--bind-address=127.0.0.1", f"--cert-dir={home / 'certificates'}"]
        await until("the API server", self._serves, START_S)
        await self._run(
            "controllers",
            [
                str(self._programs / "kube-controller-manager"),
                *shared,
                f"--secure-port={controllers}",
                f"--service-account-private-key-file={home / 'accounts.key'}",
                f"--root-ca-file={self.ca}",
                f"--node-monitor-grace-period={LOST_S}s",
                "--node-monitor-period=1s",
            ],
        )
        await self._run(
            "scheduler",
            [str(self._programs / "kube-scheduler"), *shared, f"--secure-port={scheduler}"],
        )

    async def stop(self) -> None:
        """End workers and programs."""
        for worker in self._workers:
            await worker.lose()
        for child in reversed(self._children):
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def worker(self, name: str, region: str = "eu") -> Worker:
        """A worker joins."""
        worker = Worker(self.client(), name, region)
        self._workers.append(worker)
        await worker.join()
        return worker

    async def _serves(self) -> bool:
        for name, child in zip(("etcd", "apiserver"), self._children, strict=True):
            log = (self._home / f"{name}.log").read_text(errors="replace")
            assert child.returncode is None, f"{name} ended: {log[-2_000:]}"
        client = self.client()
        return bool([item async for item in client.list(Node)] or True)

    async def _run(self, name: str, command: Sequence[str]) -> None:
        with (self._home / f"{name}.log").open("wb") as log:
            child = await asyncio.create_subprocess_exec(
                *command, cwd=self._home, stdout=log, stderr=log
            )
        self._children.append(child)

    # --- Keys ------------------------------------------------------------------------------------
    def _write_keys(self) -> None:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _certificate("holdfast test", ca_key, "holdfast test", ca_key, is_ca=True)
        key = ec.generate_private_key(ec.SECP256R1())
        self.ca.write_bytes(_pem(ca))
        certificate = _certificate("127.0.0.1", key, "holdfast test", ca_key, is_ca=False)
        (self._home / "api.pem").write_bytes(_pem(certificate))
        self._write_key("api.key", key)
        self._write_key("accounts.key", rsa.generate_private_key(65_537, 2_048))
        (self._home / "tokens.csv").write_text(f'{self.admin},admin,1,"system:masters"\n')
        (self._home / "kubeconfig").write_text(
            f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{self.endpoint}", certificate-authority: {self.ca}}}}}]
users: [{{name: u, user: {{token: {self.admin}}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""
        )

    def _write_key(self, name: str, key: Any) -> None:
        path = self._home / name
        path.touch(0o600)
        form = serialization.PrivateFormat.PKCS8
        none = serialization.NoEncryption()
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))


class Worker:
    """What a kubelet says of itself and its pods, without the containers."""

    def __init__(self, client: Any, name: str, region: str) -> None:
        self._client = client
        self.name = name
        self._region = region
        self._task: asyncio.Task[None] | None = None
        self._started: dict[str, int] = {}

    async def join(self) -> None:
        """Say that it is there, and go on saying so."""
        labels = {
            "kubernetes.io/hostname": self.name,
            "topology.kubernetes.io/region": self._region,
        }
        sizes = {"cpu": "4", "memory": "8Gi", "pods": "20"}
        node = Node(
            metadata=ObjectMeta(name=self.name, labels=labels),
            status=NodeStatus(capacity=sizes, allocatable=sizes),
        )
        await self._client.create(node)
        await self._client.create(self._lease())
        await self._say_ready()
        self._task = asyncio.create_task(self._live())

    async def lose(self) -> None:
        """Nothing is heard of it any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _live(self) -> None:
        while True:
            try:
                await self._client.patch(
                    Lease, self.name, self._lease(), namespace=LEASES, patch_type=PatchType.MERGE
                )
                await self._say_ready()
                fields = {"spec.nodeName": self.name}
                pods = self._client.list(Pod, namespace="*", fields=fields)
                for pod in [pod async for pod in pods]:
                    await self._tend(pod)
            except (ApiError, httpx2.HTTPError):
                pass  # said again in a second
            await asyncio.sleep(1.0)

    async def _tend(self, pod: Pod) -> None:
        meta = pod.metadata
        assert meta is not None
        assert meta.name is not None
        assert meta.uid is not None
        if meta.deletionTimestamp is not None:
            await self._client.delete(Pod, meta.name, namespace=meta.namespace, grace_period=0)
            return
        if meta.uid in self._started:
            return
        number = self._started[meta.uid] = len(self._started) + 1
        address = f"10.244.{os.getpid() % 250}.{number % 250}"
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now().isoformat()}
        status = {"phase": "Running", "podIP": address, "conditions": [ready]}
        await self._client.patch(
            Pod.Status, meta.name, {"status": status}, namespace=meta.namespace
        )

    async def _say_ready(self) -> None:
        at = now()
        ready = NodeCondition(
            type="Ready",
            status="True",
            lastHeartbeatTime=at,
            lastTransitionTime=at,
            reason="Played",
            message="a worker of the tests",
        )
        await self._client.patch(
            Node.Status, self.name, {"status": {"conditions": [ready.to_dict()]}}
        )

    def _lease(self) -> Lease:
        spec = LeaseSpec(holderIdentity=self.name, leaseDurationSeconds=40, renewTime=now())
        return Lease(metadata=ObjectMeta(name=self.name, namespace=LEASES), spec=spec)


def _certificate(name: str, key: Any, issuer: str, signer: Any, *, is_ca: bool) -> x509.Certificate:
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(hours=1))
        .not_valid_after(now() + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
