"""docs/api.md says what is so: its shell lines run, by real curl, and are answered as the page shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.db import connection

from delivery.choices import BatchKind
from delivery.fan_out import fan_out_shard
from delivery.intake import take_in
from devstack.stack import Stack
from followers import clock
from followers.api.schema import ALERT_ID, ENDPOINT_ID
from followers.models import Follower
from tests.api.contract_world import stored_examples
from tests.delivery.kafka_topics import Topic, running, until
from tests.pipeline import world
from tests.web.server import Server

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = django_settings.BASE_DIR
SHELL_SECONDS = 60
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
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


@pytest.mark.slow
async def test_the_quick_start_runs_from_an_empty_database_in_one_shell(
    server: Server, stack: Stack, settings: Any, tmp_path: Path
) -> None:
    """As a person types it, line after line; the test is the pipeline between Kafka and the inbox."""
    assert not await sync_to_async(Follower.objects.exists)()
    topic = await sync_to_async(Topic)(stack.env["KAFKA_BOOTSTRAP_SERVERS"])
    settings.KAFKA_TRADE_TOPIC = settings.KAFKA_GROUP_ID = topic.name
    a_checkout(tmp_path, {**stack.env, "MONGODB_URL": this_database(), "KAFKA_TRADE_TOPIC": topic.name})
    env = {"HOST": f"http://{server.address}", "PATH": os.environ["PATH"]}

    async with one_shell(env, tmp_path) as shell:
        for block in blocks("Quick start"):
            answer = await shell.run(block.lines)
            if "publish_trade" in block.lines:
                await sync_to_async(alerts_of_the_trade)()
            if block.answer is not None:
                assert matches(json.loads(block.answer), json.loads(answer)), answer

    (alert,) = await sync_to_async(world.alerts)()
    assert set(alert["deliveries"][0]["acks"]) == {"seen"}


def a_checkout(folder: Path, env: dict[str, str]) -> None:
    """What the lines use of a folder in which `make demo` runs."""
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "manage.py").symlink_to(ROOT / "manage.py")
    (folder / ".devstack" / "demo").mkdir(parents=True)
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in env.items())
    (folder / ".devstack" / "demo" / "env").write_text("".join(lines))


def this_database() -> str:
    """MONGODB_URL for a process that is to see what this test sees."""
    return urlsplit(django_settings.MONGODB_URL)._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


def alerts_of_the_trade() -> None:
    """What consume_trades and a worker do of what was published."""
    with running(lambda messages: take_in(messages, clock.now())) as consumer:
        until(lambda: consumer.batches and world.unclaimed(BatchKind.FAN_OUT))
    for batch in world.unclaimed(BatchKind.FAN_OUT):
        fan_out_shard(batch["_id"])


class Shell:
    """One bash that is given line after line, and remembers what they set."""

    END = "-- end of the block --"

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, lines: str) -> str:
        """What the lines write."""
        reader, writer = self._process.stdout, self._process.stdin
        assert reader is not None
        assert writer is not None
        writer.write(f"{lines}\necho; echo '{self.END}'\n".encode())
        written = b""
        async with asyncio.timeout(SHELL_SECONDS):
            while not written.endswith(f"\n{self.END}\n".encode()):
                line = await reader.readline()
                assert line, written.decode()  # An answer of 400 or more has ended it.
                written += line
        return written.decode().removesuffix(f"\n{self.END}\n")


@asynccontextmanager
async def one_shell(env: dict[str, str], folder: Path) -> AsyncIterator[Shell]:
    process = await bash(CURL, env, folder)
    try:
        yield Shell(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("title", ["For services", "For followers"])
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
    shell = await bash("", env)
    out, _ = await shell.communicate((CURL + lines).encode())
    assert shell.returncode == 0, out.decode()
    return out.decode()


async def bash(lines: str, env: dict[str, str], folder: Path = ROOT) -> asyncio.subprocess.Process:
    """One that has read these lines, and waits for more. What goes wrong is written among the rest."""
    pipe = asyncio.subprocess.PIPE
    shell = await asyncio.create_subprocess_exec(
        "bash", "-s", env=env, cwd=folder, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    assert shell.stdin is not None
    shell.stdin.write(lines.encode())
    return shell


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
