"""docs/operations.md: it names every setting, finds every chapter, and its commands are about what there is."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest

from tests.deploy.manifests import PROJECT_ROOT, compose, is_command_of_ours, named_settings, resources
from tests.notifyhub.test_settings import POLICY_SETTINGS

HANDBOOK = (PROJECT_ROOT / "docs" / "operations.md").read_text()
LONGEST_LINE = 140


def chapters() -> dict[str, str]:
    """What stands below each `##`; what stands before the first one is under an empty name."""
    first, *others = re.split(r"^## ", HANDBOOK, flags=re.MULTILINE)
    return {"": first} | {title: text for title, _, text in (part.partition("\n") for part in others)}


def anchor(title: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def prose() -> list[str]:
    """Lines that can be broken: no tables, no code."""
    lines = re.sub(r"^( *)```.*?^\1```$", "", HANDBOOK, flags=re.MULTILINE | re.DOTALL).splitlines()
    return [line for line in lines if not line.startswith(("|", "!["))]


def rows_of_settings() -> list[str]:
    """Every name in the first column of the settings' table."""
    first_columns = re.findall(r"^\| (`[^|]+`) \|", chapters()["Settings"], re.MULTILINE)
    return [name for column in first_columns for name in re.findall(r"`([^`]+)`", column)]


def test_every_setting_has_a_row_and_only_one() -> None:
    rows = Counter(rows_of_settings())
    wanted = named_settings() | {f"<CHANNEL>_{setting}" for setting in POLICY_SETTINGS}
    assert wanted - rows.keys() == set()
    assert [name for name, times in rows.items() if times > 1] == []


def test_no_row_is_about_a_setting_that_is_gone() -> None:
    ours = {name for name in rows_of_settings() if name.isupper() and "<" not in name}
    assert ours - named_settings() == set()


def test_the_contents_come_first_then_the_runbook_and_every_chapter_is_in_them() -> None:
    contents, *titles = chapters()
    linked = set(re.findall(r"\]\(#([\w-]+)\)", chapters()[contents]))
    assert titles[0] == "Runbook"
    assert [title for title in titles if anchor(title) not in linked] == []


def test_links_lead_somewhere() -> None:
    headings = {anchor(title) for title in re.findall(r"^#+ (.+)$", HANDBOOK, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", HANDBOOK):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (PROJECT_ROOT / "docs" / target.partition("#")[0]).exists(), target


def test_lines_of_prose_can_be_read() -> None:
    assert [line for line in prose() if len(line) > LONGEST_LINE] == []


def test_commands_are_ours() -> None:
    named = set(re.findall(r"manage\.py ([a-z_]+)", HANDBOOK)) - {"createsuperuser", "check"}
    assert {"prove", "prune", "migrate", "create_api_key", "trace"} <= named
    assert [name for name in named if not is_command_of_ours(["python", "manage.py", name])] == []


def test_what_is_restarted_scaled_and_asked_exists() -> None:
    objects, services = resources(), compose()["services"]
    assert {f"Deployment/{name}" for name in re.findall(r"deploy/(notifyhub-[\w-]+)", HANDBOOK)} <= objects.keys()
    assert {
        f"ScaledObject/{name}" for name in re.findall(r"scaledobject (notifyhub-[\w-]+)", HANDBOOK)
    } <= objects.keys()
    asked = re.findall(
        r"`dc (?:exec(?: -T)?|stop|start|restart|logs --follow --tail 200) ([a-z -]+?)(?: python|`)", HANDBOOK
    )
    assert len(asked) > 4
    assert {name for names in asked for name in names.split()} <= services.keys()
    # Cron has no terminal.
    cron = re.findall(r"^\d+ \d+ \* \* \*.*docker compose.*$", HANDBOOK, re.MULTILINE)
    assert cron and all("-f deploy/compose.yaml --profile app exec -T " in line for line in cron)


@pytest.fixture
def update() -> list[str]:
    (block,) = re.findall(r"```\n(kubectl -n notifyhub delete job .*?)```", HANDBOOK, re.DOTALL)
    return block.strip().splitlines()


def test_an_update_migrates_before_the_processes_roll(update: list[str]) -> None:
    """The migration takes along what it reads, and nothing that rolls."""
    objects = resources()
    delete, apply_first, wait, apply_all = update
    assert "notifyhub-migrate" in delete and "job/notifyhub-migrate" in wait
    assert apply_all == "kubectl apply -k deploy/kubernetes"
    (chosen,) = re.findall(r"component in \(([\w, ]+)\)", apply_first)

    applied = {name for name, resource in objects.items() if component(resource) in chosen.split(", ")}

    assert applied == {"Namespace/notifyhub", "ConfigMap/notifyhub", "Secret/notifyhub", "Job/notifyhub-migrate"}


def component(resource: dict[str, Any]) -> str:
    return str(resource["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))
