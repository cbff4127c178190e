"""Every process that is deployed is scraped exactly once: by Prometheus in compose, and by the operator in Kubernetes.

By its own files: the commands say which processes a container has, and METRICS_PORT where each of them serves.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, compose, is_command_of_ours, pods, resources

PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
SERVICES: dict[str, Any] = compose()["services"]
STAYS_UP = ("uvicorn", "rundramatiq", "consume_trades", "dispatch_due")


def processes(command: list[str]) -> int:
    return int(command[command.index("--processes") + 1]) if "--processes" in command else 1


def serving_ports(command: list[str], metrics_port: str) -> list[int]:
    """Where the processes of one container show what they have counted: web's own page, and from METRICS_PORT on."""
    first = int(metrics_port)
    own = [first + n for n in range(processes(command))] if first else []
    return ([8000] if command[0] == "uvicorn" else []) + own


def stays_up(command: list[str]) -> bool:
    return is_command_of_ours(command) and any(name in command for name in STAYS_UP)


def in_compose() -> list[str]:
    return [name for name, service in SERVICES.items() if "command" in service and stays_up(service["command"])]


def scraped_in_compose() -> Counter[tuple[str, int]]:
    """(service, port) of every target."""
    found: Counter[tuple[str, int]] = Counter()
    for job in PROMETHEUS["scrape_configs"]:
        for static in job.get("static_configs", []):
            found.update((target.partition(":")[0], int(target.partition(":")[2])) for target in static["targets"])
        for lookup in job.get("dns_sd_configs", []):
            assert lookup["type"] == "A"
            found.update((name, lookup["port"]) for name in lookup["names"])
    return found


def test_compose_has_each_process_scraped_once() -> None:
    names = in_compose()
    assert len(names) == 5
    served = Counter(
        (name, port)
        for name in names
        for port in serving_ports(SERVICES[name]["command"], SERVICES[name]["environment"]["METRICS_PORT"])
    )
    assert set(served.values()) == {1}
    assert scraped_in_compose() == served
    assert sum(served.values()) == sum(processes(SERVICES[name]["command"]) for name in names)


def test_whom_prometheus_asks_by_name_is_told_to_allow_that_name() -> None:
    targets = [
        target for job in PROMETHEUS["scrape_configs"] for s in job.get("static_configs", []) for target in s["targets"]
    ]
    (name,) = {target.partition(":")[0] for target in targets}
    for file in ("compose.yaml", "production.env.example"):
        (allowed,) = re.findall(r"DJANGO_ALLOWED_HOSTS=([\w.,]+)", (DEPLOY / file).read_text())
        assert name in allowed.split(",")


def test_the_profile_brings_the_files_to_where_they_are_looked_for() -> None:
    prometheus, grafana = SERVICES["prometheus"], SERVICES["grafana"]
    assert prometheus["profiles"] == grafana["profiles"] == ["monitoring"]
    assert "--config.file=/etc/prometheus/prometheus.yaml" in prometheus["command"]
    for volume in [*prometheus["volumes"], *grafana["volumes"]]:
        source = volume.partition(":")[0]
        assert (DEPLOY / source).exists() if source.startswith("./") else source in compose()["volumes"]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == PROMETHEUS["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "notifyhub.yaml").read_text())["providers"]
    assert any(f":{provider['options']['path']}/notifyhub.json" in volume for volume in grafana["volumes"])
    # The dashboard takes whatever source is the default.
    (variable,) = json.loads((DEPLOY / "grafana" / "notifyhub.json").read_text())["templating"]["list"]
    assert (variable["type"], variable["query"], variable["current"]) == ("datasource", source["type"], {})


DEPLOYMENTS = [name for name in pods() if name.startswith("Deployment/")]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_kubernetes_has_each_process_scraped_once(name: str) -> None:
    objects, pod = resources(), pods()[name]
    (container,) = pod["spec"]["containers"]
    direct = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
    metrics_port = direct.get("METRICS_PORT", objects["ConfigMap/notifyhub"]["data"]["METRICS_PORT"])
    monitor = objects["PodMonitor/notifyhub"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    scraped = [ports[end["port"]] for end in monitor["podMetricsEndpoints"] if end["port"] in ports]

    assert scraped == serving_ports(container["command"], metrics_port)
    assert len(scraped) == 1


def test_the_network_lets_prometheus_reach_those_ports_and_autoscaling_asks_it() -> None:
    objects = resources()
    (rule,) = objects["NetworkPolicy/notifyhub"]["spec"]["ingress"]
    (who,) = rule["from"]
    assert {port["port"] for port in rule["ports"]} == {8000, 9100}
    namespace = who["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    asked = [
        trigger["metadata"]["serverAddress"]
        for name, scaled in objects.items()
        if name.startswith("ScaledObject/")
        for trigger in scaled["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]
    assert asked and all(f".{namespace}.svc:" in address for address in asked)
