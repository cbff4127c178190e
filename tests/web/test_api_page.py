"""docs/api.md says what is so: its shell lines run, by real curl, and are answered as the page shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings

from followers.api.schema import ALERT_ID, ENDPOINT_ID
from tests.api.contract_world import stored_examples
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = (settings.BASE_DIR / "docs" / "api.md").read_text(encoding="utf-8")
SECTIONS = {title: text for title, _, text in (part.partition("\n") for part in PAGE.split("\n## "))}
CURL = 'set -e; curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
"""An answer of 400 or more ends the block."""


@dataclass(frozen=True, slots=True)
class Block:
    """Shell lines, and the JSON that the page shows beneath them."""

    lines: str
    answer: str | None


def blocks(title: str) -> list[Block]:
    found = re.finditer(r"```sh\n(.*?)```(?:\n\n```json\n(.*?)```)?", SECTIONS[title], re.DOTALL)
    return [Block(match[1], match[2]) for match in found]


@pytest.mark.parametrize("title", ["Quick start", "For services", "For followers"])
async def test_the_shell_lines_run_and_are_answered_as_shown(server: Server, title: str) -> None:
    callers, _ = await sync_to_async(stored_examples)()
    key, token = (callers.by_scheme[name].split()[1] for name in ("ServiceKey", "FollowerToken"))
    env = {
        "HOST": f"http://{server.address}", "KEY": key, "TOKEN": token, "ALERT": ALERT_ID, "ENDPOINT": ENDPOINT_ID,
        "DEVICE": ENDPOINT_ID, "PATH": os.environ["PATH"],
    }  # fmt: skip

    assert blocks(title)
    for block in blocks(title):
        answer = await run(block.lines, env)
        if block.answer is not None:
            assert matches(json.loads(block.answer), json.loads(answer)), answer


async def run(lines: str, env: dict[str, str]) -> str:
    """What bash writes."""
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec("bash", "-c", CURL + lines, env=env, stdout=pipe, stderr=pipe)
    out, err = await shell.communicate()
    assert shell.returncode == 0, out.decode() + err.decode()
    return out.decode()


def matches(shown: Any, given: Any) -> bool:
    """Whether an answer is what the page shows, where … stands for anything."""
    if isinstance(shown, dict) and isinstance(given, dict):
        named = {name: value for name, value in shown.items() if name != "…"}
        is_whole = "…" in shown or named.keys() == given.keys()
        return is_whole and all(name in given and matches(value, given[name]) for name, value in named.items())
    if isinstance(shown, list) and isinstance(given, list):
        return len(shown) == len(given) and all(map(matches, shown, given))
    if isinstance(shown, str) and isinstance(given, str):
        return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), given) is not None
    return shown == given


@pytest.mark.parametrize(
    ("shown", "given", "alike"),
    [
        ({"a": "x…"}, {"a": "xyz"}, True),
        ({"a": "x…"}, {"a": "yz"}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1, "…": "…"}, {"a": 1, "b": 2}, True),
        ([1], [], False),
        (None, "null", False),
    ],
)
def test_an_answer_is_compared_but_for_what_the_page_leaves_out(shown: Any, given: Any, alike: bool) -> None:
    assert matches(shown, given) is alike
