"""One provider of each kind for the conformance suite, and what only it can be asked."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightkube.codecs
import pytest
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Secret, ServiceAccount
from tests.cluster.control_plane import ControlPlane, until
from tests.rim.cloud.engine import Engine
from tests.rim.cloud.fake_hcloud import TOKEN as HCLOUD_TOKEN
from tests.rim.cloud.fake_hcloud import FakeHcloud
from tests.rim.cloud.fake_kubernetes import TOKEN as KUBERNETES_TOKEN
from tests.rim.cloud.fake_kubernetes import FakeKubernetes
from tests.rim.test_provider_daemon import start as start_daemon

from holdfast.rim.clock import SystemClock
from holdfast.rim.cloud.account import Account, Kind
from holdfast.rim.cloud.daemon import provider_key
from holdfast.rim.cloud.make import make_cloud
from holdfast.rim.cloud.port import Cloud
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.ports import free_port

CLOCK = SystemClock()
NETWORK = "00112233445566778899aabbccddeeff"
REGIONS = ("eu", "ap")
CONTROL_PLANE = "HOLDFAST_KUBERNETES"
"""The directory of a real control plane's programs, where `bin/test-kubernetes` has built one."""
PROVIDER = Path(__file__).parents[3] / "deploy" / "kubernetes-provider.yaml"


class Backend(ABC):
    """`start`, then `cloud()`; `told(name)`: what the machine was given, by the provider's word."""

    key = "the-key"
    account: Account

    @abstractmethod
    async def start(self, home: Path) -> None: ...

    @abstractmethod
    async def stop(self) -> None: ...

    def cloud(self, network: str = NETWORK, key: Callable[[], str] | None = None) -> Cloud:
        return make_cloud(self.account, network, key or (lambda: self.key), CLOCK)

    @abstractmethod
    def told(self, name: str) -> str: ...


class Process(Backend):
    """The daemon of `holdfast provider serve`; the real thing."""

    async def start(self, home: Path) -> None:
        self._home = home
        self._daemon = await start_daemon(home)
        self.key = provider_key(home, SystemEntropy())
        self.account = Account("alder", self._daemon.listen, "key", REGIONS)

    async def stop(self) -> None:
        await self._daemon.stop()

    def told(self, name: str) -> str:
        return (self._home / "servers" / name / "token").read_text()


class Hcloud(Backend):
    key = HCLOUD_TOKEN

    async def start(self, home: Path) -> None:
        self.fake = FakeHcloud()
        self.account = Account(
            "hetzner",
            await self.fake.start(),
            "key",
            REGIONS,
            kind=Kind.HCLOUD,
            image="holdfast",
            size="cx22",
            places={"eu": "fsn1", "ap": "hel1"},
        )

    async def stop(self) -> None:
        await self.fake.stop()

    def told(self, name: str) -> str:
        return self.fake.user_data[name]


class Kubernetes(Backend):
    key = KUBERNETES_TOKEN

    async def start(self, home: Path) -> None:
        self.fake = FakeKubernetes()
        endpoint = await self.fake.start()
        self.account = Account(
            "cluster", endpoint, "key", REGIONS, kind=Kind.KUBERNETES, image="holdfast:1"
        )

    async def stop(self) -> None:
        await self.fake.stop()

    def told(self, name: str) -> str:
        return self.fake.token_of(name)


class RealKubernetes(Backend):
    """A real control plane, and the rights that `deploy/kubernetes-provider.yaml` gives."""

    async def start(self, home: Path) -> None:
        plane = self._plane = ControlPlane(home / "plane", Path(os.environ[CONTROL_PLANE]))
        await plane.start()
        self._admin = plane.client()
        for item in lightkube.codecs.load_all_yaml(PROVIDER.read_text()):
            await self._admin.apply(item, field_manager="holdfast")
        await until("the namespace's own account", self._has_account)
        wanted = ServiceAccount.Token(
            metadata=ObjectMeta(name="headquarters", namespace="holdfast"),
            spec=TokenRequestSpec(audiences=[], expirationSeconds=3_600),
        )
        token = await self._admin.create(wanted, "headquarters", namespace="holdfast")
        self.key = token.status.token
        for region in REGIONS:
            await plane.worker(f"worker-{region}", region)
        self.account = Account(
            "cluster",
            plane.endpoint,
            "key",
            REGIONS,
            kind=Kind.KUBERNETES,
            image="holdfast:1",
            ca_file=str(plane.ca),
            places={region: region for region in REGIONS},
        )

    async def _has_account(self) -> bool:
        await self._admin.get(ServiceAccount, "default", namespace="holdfast")
        return True

    async def stop(self) -> None:
        await self._plane.stop()

    def told(self, name: str) -> str:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            secret = pool.submit(asyncio.run, self._secret(name)).result()
        return base64.b64decode(secret.data["token"]).decode()

    async def _secret(self, name: str) -> Any:
        return await self._plane.client().get(Secret, name, namespace="holdfast")


class Libcloud(Backend):
    """EC2's driver over HTTP to moto's server."""

    key = "AKIA:secret"

    async def start(self, home: Path) -> None:
        import boto3
        import libcloud.compute.drivers.ec2 as ec2
        from moto.server import ThreadedMotoServer

        # moto leaves out the slash at the end of the namespace that EC2 sends.
        ec2.NAMESPACE = ec2.NAMESPACE.rstrip("/")
        port = free_port("127.0.0.1", SystemEntropy())
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        self._server.start()
        endpoint = f"http://127.0.0.1:{port}"
        await asyncio.to_thread(_reset_moto, endpoint)
        self._boto = [
            boto3.client(
                "ec2",
                endpoint_url=endpoint,
                region_name=region,
                aws_access_key_id="a",
                aws_secret_access_key="b",
            )
            for region in ("eu-west-1", "ap-south-1")
        ]
        image = self._boto[0].describe_images()["Images"][0]["ImageId"]
        self.account = Account(
            "amazon",
            endpoint,
            "key",
            REGIONS,
            kind=Kind.LIBCLOUD,
            image=image,
            size="t3.small",
            driver="ec2",
            places={"eu": "eu-west-1", "ap": "ap-south-1"},
        )

    async def stop(self) -> None:
        self._server.stop()

    def told(self, name: str) -> str:
        for boto in self._boto:
            for row in boto.describe_instances()["Reservations"]:
                for each in row["Instances"]:
                    tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", [])}
                    if tags.get("Name") == name:
                        found: Any = boto.describe_instance_attribute(
                            InstanceId=each["InstanceId"], Attribute="userData"
                        )
                        return base64.b64decode(found["UserData"]["Value"]).decode()
        raise AssertionError(f"no machine {name}")


def _reset_moto(endpoint: str) -> None:
    """Its machines outlive its server within one process."""
    with urllib.request.urlopen(f"{endpoint}/moto-api/reset", data=b"") as reply:
        assert reply.status == 200


IMAGE = "holdfast-test:latest"


class Podman(Backend):
    """Docker's API as podman serves it; real containers of a root file system of one file."""

    key = ""

    async def start(self, home: Path) -> None:
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        engine = self.engine = Engine()
        busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
        with tarfile.open(engine.home / "root.tar", "w") as archive:
            about = tarfile.TarInfo("busybox")
            about.size, about.mode = len(busybox), 0o755
            archive.addfile(about, io.BytesIO(busybox))
        change = 'CMD ["/busybox", "sleep", "600"]'
        engine.podman("import", "--change", change, str(engine.home / "root.tar"), IMAGE)
        # Podman and runc are there, installed by bin/test; a kernel or sandbox may forbid them.
        if refusal := engine.refusal("run", "--rm", IMAGE, "/busybox", "true"):
            pytest.skip(f"no container starts on this machine: {refusal}")
        socket = engine.home / "podman.sock"
        words = ["podman", *engine.store, "system", "service", "--time=0", f"unix://{socket}"]
        with (engine.home / "podman.log").open("wb") as log:
            self._service = subprocess.Popen(
                words, env=engine.env, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while not socket.exists():
            assert time.monotonic() < deadline, (engine.home / "podman.log").read_text()
            time.sleep(0.05)
        self.account = Account(
            "engine", f"unix://{socket}", "key", REGIONS, kind=Kind.DOCKER, image=IMAGE
        )

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._service.pid, signal.SIGTERM)
        self._service.wait(timeout=20)
        self.engine.close()

    def told(self, name: str) -> str:
        pid = self.engine.podman("inspect", "--format={{.State.Pid}}", name).strip()
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found = [word for word in words if word.startswith(b"HOLDFAST_")]
        assert len(found) == 1, "nothing else of ours is in its environment"
        return found[0].decode().partition("=")[2]


BACKENDS: dict[str, type[Backend]] = {
    "process": Process,
    "docker": Podman,
    "kubernetes": Kubernetes,
    "hcloud": Hcloud,
    "libcloud": Libcloud,
}
if CONTROL_PLANE in os.environ:
    BACKENDS["cluster"] = RealKubernetes
