"""What is in `deploy/`, judged before anybody runs it (seed 000: entry layer on Kubernetes)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
VERSIONS = ("1.29", "1.31", "1.33")


def documents() -> list[tuple[str, dict[str, Any]]]:
    files = sorted(path for path in KUBERNETES.glob("*.yaml") if path.stem != "kustomization")
    return [
        (f"{path.name}:{document['kind']}", document)
        for path in files
        for document in yaml.safe_load_all(path.read_text())
    ]


def of_kind(kind: str) -> dict[str, Any]:
    return next(document for _, document in documents() if document["kind"] == kind)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "document"), documents(), ids=lambda value: str(value)[:40])
def test_every_manifest_is_strictly_valid(
    name: str, document: dict[str, Any], version: str
) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_field_is_seen() -> None:
    document = of_kind("StatefulSet")
    document["spec"]["replica"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_kustomize_takes_all_of_them() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(
        path.name for path in KUBERNETES.glob("*.yaml") if path.stem != "kustomization"
    )


def test_everything_speaks_of_the_same_pods() -> None:
    labels = of_kind("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("StatefulSet")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    services = [d for _, d in documents() if d["kind"] == "Service"]
    assert all(service["spec"]["selector"] == labels for service in services)
    assert of_kind("StatefulSet")["spec"]["serviceName"] in {
        s["metadata"]["name"] for s in services if s["spec"].get("clusterIP") == "None"
    }
    target = of_kind("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", "entry")
    spaces = {d["metadata"].get("namespace") for _, d in documents() if d["kind"] != "Namespace"}
    assert spaces == {of_kind("Namespace")["metadata"]["name"]}


def test_no_pod_may_more_than_it_must() -> None:
    pod = of_kind("StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
    blocked = of_kind("NetworkPolicy")["spec"]["egress"][1]["to"][0]["ipBlock"]["except"]
    assert {"10.0.0.0/8", "192.168.0.0/16", "169.254.0.0/16"} <= set(blocked)


@pytest.mark.parametrize("file", ["compose.node.yaml", "compose.headquarters.yaml"])
def test_compose_services_are_shut_in(file: str) -> None:
    services = yaml.safe_load((DEPLOY / file).read_text())["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert service["volumes"], name
    named = yaml.safe_load((DEPLOY / file).read_text())["volumes"]
    used = {v.partition(":")[0] for service in services.values() for v in service["volumes"]}
    assert used == set(named)


def test_the_image_is_not_roots_and_tells_its_health() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith(("#", " "))]
    stages = [line for line in words if line[0] == "FROM"]
    last = words[len(words) - words[::-1].index(stages[-1]) - 1 :]
    assert len(stages) == 2
    assert [line[1] for line in last if line[0] == "USER"] == ["10001:10001"]
    assert any(line[0] == "HEALTHCHECK" for line in last)
    assert not [line for line in words if line[0] == "ADD"]
    copied = {part for line in words if line[0] == "COPY" and "--from" not in line[1]
              for part in line[1:-1]}  # fmt: skip
    ignored = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
