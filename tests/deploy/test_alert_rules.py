"""The alert rules and the dashboard by Prometheus's own tool: rules fire and keep quiet, expressions are PromQL.

promtool comes with Prometheus. .ci/run fetches it where it is missing; nothing else of Prometheus is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, PROJECT_ROOT

UNIT_TESTS = PROJECT_ROOT / "tests" / "deploy" / "alerts_test.yaml"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "notifyhub.json"

HOW_TO_GET_IT = """promtool is missing. From the project's root, on Debian and Ubuntu, without root:
    apt-get download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb |
        tar -x -C .venv/bin --strip-components=3 ./usr/bin/promtool
or anywhere on the PATH from prometheus.io/download."""


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which("promtool", path=places)
    if found is None:
        pytest.fail(HOW_TO_GET_IT, pytrace=False)
    return subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)


def says_yes(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def alert_names() -> list[str]:
    return [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_rule_fires_when_it_should_and_only_then() -> None:
    assert says_yes(promtool("test", "rules", UNIT_TESTS))


@pytest.mark.parametrize("alert", alert_names())
def test_each_rule_has_a_case_where_it_fires_and_one_where_it_does_not(alert: str) -> None:
    cases = [case for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert} == {True, False}


def test_prometheus_takes_its_configuration_and_the_rules_that_it_names() -> None:
    assert says_yes(promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yaml"))


def as_rules(expressions: list[str]) -> str:
    """A rule file with these expressions, so that promtool reads them; Grafana's variable is a time by then."""
    rules: list[dict[str, Any]] = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(expressions)
    ]
    return yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]})


def test_every_expression_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) >= len(panels)
    file = tmp_path / "dashboard.yaml"
    file.write_text(as_rules(expressions))

    assert says_yes(promtool("check", "rules", file))


def test_one_that_is_not_would_be_noticed(tmp_path: Path) -> None:
    file = tmp_path / "dashboard.yaml"
    file.write_text(as_rules(["sum(rate(notifyhub_events_total))"]))

    refused = promtool("check", "rules", file)

    assert refused.returncode != 0
    assert "range vector" in refused.stdout + refused.stderr
