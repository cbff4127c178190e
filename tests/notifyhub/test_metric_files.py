"""Counts of several processes: summed up, kept when one is killed, and never counted twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from followers.metric_files import MetricFiles

ROOT = Path(__file__).resolve().parents[2]
START = "from django.conf import settings\nfrom notifications import telemetry\nimport os, sys\n"
WAIT = "print('counted', flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that counts, and returns once it has."""
    running: list[subprocess.Popen[str]] = []

    def counting(script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", START + script + WAIT],
            cwd=ROOT,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        return process

    yield counting
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def files(tmp_path: Path) -> MetricFiles:
    return MetricFiles(tmp_path)


def figures(files: MetricFiles) -> dict[str, float]:
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for metric in files.collect()
        for sample in metric.samples
    }


def test_a_killed_process_does_not_lose_its_counts(start: Callable[..., Any], files: MetricFiles) -> None:
    first = start("telemetry.EVENTS.labels('accepted').inc(3)\ntelemetry.FAN_OUT_SECONDS.observe(0.3)\n")
    second = start("telemetry.EVENTS.labels('accepted').inc(4)\ntelemetry.FAN_OUT_SECONDS.observe_all([0.3, 70])\n")
    before = figures(files)

    first.kill()
    first.wait()
    after = figures(files)
    second.kill()
    second.wait()
    start("telemetry.EVENTS.labels('accepted').inc(1)\n")
    at_last = figures(files)

    assert before["notifyhub_events_total accepted"] == 7
    assert after == before
    assert at_last["notifyhub_events_total accepted"] == 8
    assert at_last["notifyhub_fan_out_seconds_count"] == 3
    assert at_last["notifyhub_fan_out_seconds_bucket 0.5"] == 2
    assert at_last["notifyhub_fan_out_seconds_sum"] == pytest.approx(70.6)
    assert len(list(files.directory.glob("*.alive"))) == 1, "What the dead have left is gone."
    assert len(list(files.directory.glob("archive-*"))) == 1


def test_a_dead_process_says_nothing_of_the_present_any_more(start: Callable[..., Any], files: MetricFiles) -> None:
    process = start("telemetry.LAST_SWEEP.set_to_current_time()\n")
    sweep = "notifyhub_dispatcher_last_sweep_timestamp_seconds"
    assert figures(files)[sweep] > 0

    process.kill()
    process.wait()

    assert sweep not in figures(files)


def test_a_fork_counts_for_itself(start: Callable[..., Any], files: MetricFiles) -> None:
    fork = "if os.fork() == 0:\n    telemetry.EVENTS.labels('accepted').inc(2)\n    os._exit(0)\nos.wait()\n"
    start("telemetry.EVENTS.labels('accepted').inc(1)\n" + fork + "telemetry.EVENTS.labels('accepted').inc(1)\n")

    assert figures(files)["notifyhub_events_total accepted"] == 4
    assert figures(files)["notifyhub_events_total accepted"] == 4


def left_behind(directory: Path, process: str, count: float) -> None:
    """A process that counted and was killed."""
    file = MmapedDict(str(directory / f"counter_{process}.db"))
    file.write_value(mmap_key("notifyhub_events", "notifyhub_events_total", ["outcome"], ["accepted"], "…"), count, 0.0)
    file.close()
    (directory / f"{process}.alive").touch()


@pytest.mark.parametrize(("where", "dies_in"), [(Path, "rename"), (Path, "unlink"), (shutil, "rmtree")])
def test_killed_while_archiving_nothing_is_lost_or_counted_twice(
    files: MetricFiles, monkeypatch: pytest.MonkeyPatch, where: Any, dies_in: str
) -> None:
    left_behind(files.directory, "1-aa", 5)
    assert figures(files)["notifyhub_events_total accepted"] == 5
    left_behind(files.directory, "2-bb", 6)

    def die(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            figures(files)

    assert figures(files)["notifyhub_events_total accepted"] == 11
    assert not list(files.directory.glob("*.db"))
    assert len([*files.directory.glob("archive-*"), *files.directory.glob("new-*")]) == 1


def test_a_file_that_was_never_finished_hides_nothing(files: MetricFiles) -> None:
    left_behind(files.directory, "1-aa", 5)
    (files.directory / "counter_2-bb.db").touch()
    (files.directory / "histogram_3-cc.db").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f" + bytes(8))

    assert figures(files)["notifyhub_events_total accepted"] == 5
