"""deploy/compose.yaml and the image: every process, with a check, and nothing that the project does not know.

No container is built or run here: that needs an engine.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from django.conf import settings

from tests.deploy.manifests import DEPLOY, PROJECT_ROOT, compose, is_command_of_ours, named_settings

SERVICES: dict[str, Any] = compose()["services"]
PROCESSES = ["web", "worker", "worker-critical", "consume-trades", "dispatch-due"]
SERVERS = ["mongodb", "valkey", "kafka", "elasticmq"]
MONITORING = ["prometheus", "grafana"]


def test_nothing_else_is_in_it() -> None:
    assert set(SERVICES) == {"migrate", *PROCESSES, *SERVERS, *MONITORING}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_process_waits_for_migrate_is_checked_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert is_command_of_ours(service["command"])
    assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert int(service["stop_grace_period"].removesuffix("s")) >= settings.SHUTDOWN_GRACE_SECONDS + 5
    assert service["read_only"] is True
    assert service["environment"].keys() <= named_settings()


def test_one_look_after_wake_ups_at_least_is_left_when_one_goes() -> None:
    assert SERVICES["dispatch-due"]["scale"] == 2
    assert SERVICES["migrate"]["restart"] == "on-failure:3"


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_checked_started_again_and_for_this_machine_only(name: str) -> None:
    service = SERVICES[name]
    assert "profiles" not in service  # They come up alone for whoever wants only them.
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", MONITORING)
def test_monitoring_is_asked_for_checked_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["profiles"] == ["monitoring"]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"


def test_no_port_is_open_to_the_network() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_processes_reach_the_servers_by_the_names_and_ports_they_have() -> None:
    environment = SERVICES["worker"]["environment"]
    for name in ("MONGODB_URL", "REDIS_URL", "DRAMATIQ_BROKER_URL"):
        host, _port = re.findall(r"//([\w-]+):(\d+)", environment[name])[0]
        assert host in SERVERS
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"//{environment['KAFKA_BOOTSTRAP_SERVERS']}" in advertised
    # Direct, because the replica set's own name for its member would lead a container to itself.
    assert "directConnection=true" in environment["MONGODB_URL"]


class TestImage:
    dockerfile = (DEPLOY / "Dockerfile").read_text()

    def test_it_is_built_in_stages_and_runs_as_nobody_in_particular(self) -> None:
        assert len(re.findall(r"^FROM ", self.dockerfile, re.MULTILINE)) == 2
        last = self.dockerfile.rpartition("\nFROM ")[2]
        assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
        assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
        assert "pip install" not in last

    def test_its_command_is_the_web_process_as_compose_starts_it(self) -> None:
        command = yaml.safe_load(re.findall(r"^CMD (\[.*\])$", self.dockerfile, re.MULTILINE)[0])
        assert command == SERVICES["web"]["command"]

    def test_every_package_is_held_to_a_release_or_a_series(self) -> None:
        for file in ("requirements.txt", "requirements-otel.txt"):
            lines = (PROJECT_ROOT / file).read_text().splitlines()
            packages = [line.partition("#")[0].strip() for line in lines]
            assert [package for package in packages if package and not re.search(r"==\d", package)] == []

    def test_it_copies_every_package_that_runs_and_the_context_has_nothing_else(self) -> None:
        copied = set(re.findall(r"^COPY (\w+) \1$", self.dockerfile, re.MULTILINE))
        allowed = {line[1:] for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
        installed = {app.partition(".")[0] for app in settings.INSTALLED_APPS if (PROJECT_ROOT / app).is_dir()}

        assert installed | {"notifyhub", "templates"} == copied
        assert copied | {"manage.py", "requirements.txt", "requirements-otel.txt"} == allowed
