"""`deploy/kubernetes` on a real control plane (seed 000: the entry layer on Kubernetes)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import lightkube.codecs
import pytest
import yaml
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import (
    Container,
    HostPathVolumeSource,
    PersistentVolumeSpec,
    PodSpec,
    SecurityContext,
)
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import StatefulSet
from lightkube.resources.core_v1 import Node, PersistentVolume, Pod
from tests.cluster.control_plane import ControlPlane, until

pytestmark = pytest.mark.kubernetes
KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
SPACE = "holdfast"
DISKS = 4
GIVEN_UP_S = 90.0
"""Six seconds until a worker is known to be lost, thirty that its pods tolerate, and the waits."""


def play(home: Path, scenario: Callable[[ControlPlane, Any], Awaitable[None]]) -> None:
    async def main() -> None:
        plane = ControlPlane(home / "plane", Path(os.environ["HOLDFAST_KUBERNETES"]))
        try:
            await plane.start()
            client = plane.client()
            await apply_all(client)
            await scenario(plane, client)
        finally:
            await plane.stop()

    asyncio.run(main())


async def apply_all(client: Any) -> None:
    """What `kubectl apply --kustomize` sends, and disks for the pods to claim."""
    for name in yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]:
        for item in lightkube.codecs.load_all_yaml((KUBERNETES / name).read_text()):
            await client.apply(item, field_manager="holdfast")
    for number in range(DISKS):
        spec = PersistentVolumeSpec(
            accessModes=["ReadWriteOnce"],
            capacity={"storage": "1Gi"},
            hostPath=HostPathVolumeSource(f"/disk/{number}"),
        )
        meta = ObjectMeta(name=f"disk-{number}")
        await client.create(PersistentVolume(metadata=meta, spec=spec))


async def running(client: Any) -> dict[str, str]:
    """Pods that run and are not on their way out, and where."""
    return {
        pod.metadata.name: pod.spec.nodeName
        async for pod in client.list(Pod, namespace=SPACE)
        if pod.status.phase == "Running" and pod.metadata.deletionTimestamp is None
    }


async def uid(client: Any, name: str) -> str:
    pod = await client.get(Pod, name, namespace=SPACE)
    return str(pod.metadata.uid)


async def evict(client: Any, name: str) -> None:
    """What draining a worker does to each pod. Raises ApiError."""
    meta = ObjectMeta(name=name, namespace=SPACE)
    await client.create(Pod.Eviction(metadata=meta), name, namespace=SPACE)


async def run_on(client: Any, *workers: str) -> None:
    """Wait until there is one pod on each of them."""

    async def holds() -> bool:
        return sorted((await running(client)).values()) == sorted(workers)

    await until(f"one pod on each of {workers}", holds)


def test_a_worker_that_joins_gets_pods_and_one_that_is_lost_gives_them_up(tmp_path: Path) -> None:
    async def scenario(plane: ControlPlane, client: Any) -> None:
        first = await plane.worker("worker-1")
        await plane.worker("worker-2")
        await run_on(client, "worker-1", "worker-2")
        await plane.worker("worker-3")
        more = {"spec": {"replicas": 3}}  # as the autoscaler asks for
        await client.patch(StatefulSet, "entry", more, namespace=SPACE)
        await run_on(client, "worker-1", "worker-2", "worker-3")
        where = await running(client)
        (victim,) = [name for name, worker in where.items() if worker == "worker-1"]
        before = await uid(client, victim)

        await first.lose()

        async def is_given_up() -> bool:
            pod = await client.get(Pod, victim, namespace=SPACE)
            return pod.metadata.deletionTimestamp is not None

        await until("the pod to be given up", is_given_up, GIVEN_UP_S)
        await asyncio.sleep(5.0)
        assert await uid(client, victim) == before, "who is somebody is never in two places"
        await client.delete(Node, "worker-1")  # the machine is gone, says its provider

        async def has_moved() -> bool:
            return (await running(client)).get(victim, "worker-1") != "worker-1"

        await until("the pod to run elsewhere", has_moved, GIVEN_UP_S)
        assert await uid(client, victim) != before
        assert len(await running(client)) == 3

    play(tmp_path, scenario)


def test_one_pod_at_a_time_may_be_taken_and_none_that_may_more_is_let_in(tmp_path: Path) -> None:
    async def scenario(plane: ControlPlane, client: Any) -> None:
        first = await plane.worker("worker-1")
        second = await plane.worker("worker-2")
        await run_on(client, "worker-1", "worker-2")
        await asyncio.sleep(2.0)  # the budget is counted by a controller
        for worker in (first, second):
            await worker.lose()  # nobody ends the pod that is taken: it stays on its way out
        await evict(client, "entry-0")
        with pytest.raises(ApiError) as refusal:
            await evict(client, "entry-1")
        assert refusal.value.status.code == 429

        root = SecurityContext(runAsUser=0)
        greedy = Container(name="c", image="i", securityContext=root)
        pod = Pod(
            metadata=ObjectMeta(name="greedy", namespace=SPACE), spec=PodSpec(containers=[greedy])
        )
        with pytest.raises(ApiError) as refusal:
            await client.create(pod)
        assert "violates PodSecurity" in (refusal.value.status.message or "")

    play(tmp_path, scenario)
