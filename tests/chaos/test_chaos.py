"""The chaos suite as it is run by `make chaos`: its short form, its ability to fail, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 600  # A run that takes longer hangs.
ENDS_WITHIN_SECONDS = 10


class Chaos:
    """`python -m devstack.chaos` in a temporary folder of its own, by which everything that it started is known."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._directory = directory
        self._figures = directory / "figures.json"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "devstack.chaos", "--json", str(self._figures), *arguments],
            cwd=PROJECT_ROOT,
            env={**os.environ, "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for(self, words: str) -> None:
        assert self.process.stdout is not None
        assert any(words in line for line in self.process.stdout), f"It ended without saying {words!r}."

    def finish(self) -> tuple[int, str]:
        """Its exit status and what it has printed."""
        printed, _ = self.process.communicate(timeout=TIMEOUT_SECONDS)
        return self.process.returncode, printed

    @property
    def rounds(self) -> dict[str, dict[str, Any]]:
        return {each["fault"]: each for each in json.loads(self._figures.read_text())}

    def left_behind(self) -> list[str]:
        """Processes that still run: all of them inherited the name of the folder."""
        wanted = f"TMPDIR={self._directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes().decode()[:100]}")
            except OSError:  # It has ended since, or is another user's.
                continue
        return found


def test_short_form_loses_nothing(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, "--short")

    status, printed = chaos.finish()

    assert status == 0, printed
    for name, each in chaos.rounds.items():
        assert each["in_flight"] > 0, name
        assert each["verdict"]["alerts"] > 0, name
        assert (each["verdict"]["lost"], each["verdict"]["untrue"], each["verdict"]["duplicates"]) == ([], [], 0)
    assert {"worker", "consume_trades", "dispatch_due", "web", "valkey-emptied", "mongodb"} <= chaos.rounds.keys()
    assert chaos.rounds["worker"]["restarts"]["workers"] >= 1
    assert chaos.left_behind() == []
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_without_dispatch_due_the_suite_fails(tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, "--short", "--faults", "worker", "--without", "dispatch_due", "--settle-seconds", "20")

    status, printed = chaos.finish()

    assert status == 1, printed
    worker = chaos.rounds["worker"]
    assert worker["recovered_after"] is None
    # Sends were in flight, and alerts are named: one alert may have had several of them.
    assert worker["in_flight"] > 0
    assert worker["verdict"]["lost"]
    assert "FAILED" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    chaos = Chaos(tmp_path, "--short")
    chaos.wait_for("Starting NotifyHub's processes")

    chaos.process.send_signal(number)

    status, _ = chaos.finish()
    assert status == (130 if number is signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while chaos.left_behind() and time.monotonic() < deadline:
        time.sleep(0.05)  # Of a killed parent nobody tells when the last of its children is gone.
    assert chaos.left_behind() == []
