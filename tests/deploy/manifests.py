"""What stands in deploy/, as data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT_ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def resources() -> dict[str, dict[str, Any]]:
    """Every Kubernetes object by kind and name, kustomization.yaml left out."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(KUBERNETES.glob("*.yaml")):
        if file.name == "kustomization.yaml":
            continue
        for document in yaml.safe_load_all(file.read_text()):
            name = f"{document['kind']}/{document['metadata']['name']}"
            assert name not in found, f"{name} stands there twice."
            found[name] = document
    return found


def pods() -> dict[str, dict[str, Any]]:
    """The pod template of every workload, by kind and name."""
    found = {}
    for name, resource in resources().items():
        spec = resource.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[name] = spec["template"]
    return found


def named_settings(file: str = ".env.example") -> set[str]:
    return set(re.findall(r"^([A-Z][A-Z_]*)=", (PROJECT_ROOT / file).read_text(), re.MULTILINE))


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def is_command_of_ours(command: list[str]) -> bool:
    """Whether this is `python manage.py <one of our commands or migrate> …` or our web process."""
    if command[:2] == ["uvicorn", "notifyhub.asgi:application"]:
        return True
    if command[:2] != ["python", "manage.py"]:
        return False
    ours = {file.stem for file in PROJECT_ROOT.glob("*/management/commands/[a-z]*.py")} | {"migrate"}
    return command[2] in ours
