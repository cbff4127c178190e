"""The Kubernetes manifests: right by the API's own schemas, and whole by what this project asks of them.

KEDA's and the Prometheus operator's objects have no schema in the package; what they name is compared with the
manifests and the code instead.
"""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from django.conf import settings

from tests.deploy.manifests import KUBERNETES, is_command_of_ours, named_settings, pods, resources

OLDEST_KUBERNETES, NEWEST_KUBERNETES = "1.32", "1.37"
WITHOUT_SCHEMA = ("keda.sh/", "monitoring.coreos.com/")
RESOURCES, PODS = resources(), pods()
DEPLOYMENTS = [name for name in PODS if name.startswith("Deployment/")]
SCALED = [name for name in RESOURCES if name.startswith("ScaledObject/")]


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_every_object_fits_the_schema_of_its_kind(version: str) -> None:
    for name, resource in RESOURCES.items():
        if not resource["apiVersion"].startswith(WITHOUT_SCHEMA):
            kubernetes_validate.validate(resource, version, strict=True), name


def test_the_schemas_are_strict_enough_to_notice_a_slip() -> None:
    wrong = resources()["Deployment/notifyhub-web"]
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST_KUBERNETES, strict=True)


def test_kustomize_takes_every_file() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    files = {file.name for file in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    (image,) = kustomization["images"]
    assert {main(pod)["image"].partition(":")[0] for pod in PODS.values()} == {image["name"]}


def test_every_process_of_the_handbook_is_deployed() -> None:
    commands = {" ".join(main(PODS[name])["command"]) for name in DEPLOYMENTS}
    for wanted in ("uvicorn", "rundramatiq", "--priorities critical", "consume_trades", "dispatch_due"):
        assert any(wanted in command for command in commands), wanted
    assert RESOURCES["Deployment/notifyhub-dispatcher"]["spec"]["replicas"] == 2


@pytest.mark.parametrize("name", PODS)
def test_containers_run_our_commands_as_nobody_in_particular(name: str) -> None:
    pod = PODS[name]["spec"]
    container = main(PODS[name])

    assert is_command_of_ours(container["command"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_what_stays_up_is_probed_and_given_time_to_stop(name: str) -> None:
    container = main(PODS[name])
    ports = {port["name"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    grace = PODS[name]["spec"]["terminationGracePeriodSeconds"]
    longest = settings.SHUTDOWN_GRACE_SECONDS if "rundramatiq" in container["command"] else 20
    assert grace >= longest + 5


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_selectors_labels_and_disruption_budgets_name_the_same_pods(name: str) -> None:
    labels = PODS[name]["metadata"]["labels"]
    assert RESOURCES[name]["spec"]["selector"]["matchLabels"] == labels
    budget = RESOURCES[name.replace("Deployment/", "PodDisruptionBudget/")]
    assert budget["spec"]["selector"]["matchLabels"] == labels


def test_every_setting_that_is_named_exists() -> None:
    config, secret = RESOURCES["ConfigMap/notifyhub"]["data"], RESOURCES["Secret/notifyhub"]["stringData"]
    direct = {entry["name"] for pod in PODS.values() for entry in main(pod).get("env", [])}

    assert config.keys().isdisjoint(secret)
    assert (config.keys() | secret.keys() | direct) - {"POD_IP"} <= named_settings()


def test_pods_read_the_settings_and_secrets_that_there_are() -> None:
    for pod in PODS.values():
        assert main(pod)["envFrom"] == [
            {"configMapRef": {"name": "notifyhub"}},
            {"secretRef": {"name": "notifyhub"}},
        ]


@pytest.mark.parametrize("name", SCALED)
def test_scaling_goes_by_figures_that_exist_and_never_to_zero(name: str) -> None:
    spec = RESOURCES[name]["spec"]
    deployment = RESOURCES[f"Deployment/{spec['scaleTargetRef']['name']}"]
    assert "replicas" not in deployment["spec"]  # KEDA sets them: an apply must not set them back.
    assert 2 <= spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    config = RESOURCES["ConfigMap/notifyhub"]["data"]
    if trigger["type"] == "kafka":
        assert trigger["metadata"]["topic"] == config["KAFKA_TRADE_TOPIC"]
        assert trigger["metadata"]["consumerGroup"] == config["KAFKA_GROUP_ID"]
        assert trigger["metadata"]["bootstrapServers"] == config["KAFKA_BOOTSTRAP_SERVERS"]
        assert f"TriggerAuthentication/{trigger['authenticationRef']['name']}" in RESOURCES
    else:
        (metric,) = re.findall(r"notifyhub_\w+", trigger["metadata"]["query"])
        assert metric == "notifyhub_queue_depth"
        # KEDA takes no answer for a nought unless it is told otherwise.
        assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_the_network_lets_nobody_but_the_ingress_and_prometheus_in() -> None:
    everything = RESOURCES["NetworkPolicy/notifyhub"]["spec"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    for pod in PODS.values():
        assert everything["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    internet = [to for rule in everything["egress"] for to in rule["to"] if "ipBlock" in to]
    assert all("10.0.0.0/8" in to["ipBlock"]["except"] for to in internet)


def main(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return container
