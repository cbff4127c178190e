"""The dashboard and the alert rules ask only for what the code exposes, and docs/operations.md explains all of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from notifications import telemetry
from notifyhub import metrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "notifyhub.json"
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every series of ours, with its labels: what is counted, and what is read at each scrape."""
    counted = [metric for metric in REGISTRY.collect() if metric.name.startswith("notifyhub_")]
    made = {
        metric._name: set(metric._labelnames) for metric in vars(telemetry).values() if hasattr(metric, "_labelnames")
    }
    series = {f"{m.name}{suffix}": made[m.name] for m in counted for suffix in SUFFIXES[m.type]}
    source = Path(metrics.__file__).read_text()
    read = re.findall(r'"(notifyhub_\w+)",\s*"[^"]+"(?:,\s*labels=\["(\w+)"\])?', source)
    return series | {name: {label} - {""} for name, label in read}


def expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]] + [rule["expr"] for rule in rules]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def test_every_metric_they_use_exists_with_the_labels_they_use(exposed: dict[str, set[str]]) -> None:
    for expression in expressions():
        names = re.findall(r"notifyhub_\w+", expression)
        assert names, expression
        assert set(names) <= set(exposed), expression
        labels = set().union(*(exposed[name] for name in names)) | {"le"}
        grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
        matched = set(re.findall(r"[{,](\w+)(?:=~|!=|=)", expression))
        assert grouped | matched <= labels, expression
        assert expression.count("(") == expression.count(")"), expression


def test_every_contract_name_is_exposed(exposed: dict[str, set[str]]) -> None:
    assert {
        "notifyhub_delivery_seconds_bucket": {"channel"},
        "notifyhub_event_to_delivery_seconds_bucket": {"channel", "priority"},
        "notifyhub_deliveries_total": {"channel", "outcome", "error"},
        "notifyhub_queue_depth": {"queue"},
        "notifyhub_consumer_lag": {"partition"},
        "notifyhub_fan_out_seconds_bucket": set(),
        "notifyhub_events_total": {"outcome"},
        "notifyhub_breaker_state": {"channel"},
        "notifyhub_review_open": set(),
    }.items() <= exposed.items()


def test_buckets_reach_from_5_ms_to_60_s() -> None:
    bounds = telemetry.EVENT_TO_DELIVERY_SECONDS.labels("fcm", "high")._upper_bounds
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.005, 60, float("inf"))


def test_every_metric_and_every_alert_is_explained(exposed: dict[str, set[str]]) -> None:
    names = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed}
    assert [name for name in sorted(names) if f"`{name}" not in OPERATIONS] == []
    assert [rule["alert"] for rule in alerts() if f"`{rule['alert']}`" not in OPERATIONS] == []


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"\d+m", rule["for"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
