"""How fast `import_followers` is beside a bare pymongo loop: `python -m bench.import_followers [LINES]`.

The loop upserts the same documents into the same indexes by `bulk_write`, and is handed them ready made: it neither
reads JSON nor checks nor encrypts anything. Both run against MONGODB_URL's server, in a database of their own that is
dropped afterwards. Prints one JSON object; the import's ratio is meant to stay above 0.5.
"""

# ruff: noqa: PLC0415  # Models can be imported only once Django is set up.
from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import django
import orjson

CHUNK = 2_000
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
KEYS = (["external_id"], ["external_id"], ["trader_id", "follower_id"], ["channel", "address_hash"])
TABLES = ("followers_trader", "followers_follower", "followers_follow", "followers_endpoint")


def main() -> None:
    parser = argparse.ArgumentParser(description="Times import_followers against a bare pymongo loop.")
    parser.add_argument("lines", type=int, nargs="?", default=100_000)
    lines: int = parser.parse_args().lines
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "notifyhub.settings")
    django.setup()
    with _own_database(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "followers.ndjson"
        _write_file(path, lines)
        print(json.dumps(_measure(path, lines), indent=2))  # noqa: T201


def _measure(path: Path, lines: int) -> dict[str, Any]:
    first, memory = _timed_import(path)
    again, _ = _timed_import(path)
    documents = _documents()
    _empty()
    raw = _timed(lambda: _raw_upserts(documents))
    raw_again = _timed(lambda: _raw_upserts(documents))
    _empty()
    inserts = _timed(lambda: _raw_inserts(documents))
    return {
        "lines": lines,
        "import_lines_per_second": round(lines / first),
        "import_again_lines_per_second": round(lines / again),
        "raw_upserts_lines_per_second": round(lines / raw),
        "raw_upserts_again_lines_per_second": round(lines / raw_again),
        "raw_inserts_lines_per_second": round(lines / inserts),
        "ratio_to_raw_upserts": round(raw / first, 2),
        "ratio_to_raw_upserts_again": round(raw_again / again, 2),
        "ratio_to_raw_inserts": round(inserts / first, 2),
        "rss_mib_after_a_tenth": memory[len(memory) // 10],
        "rss_mib_halfway": memory[len(memory) // 2],
        "rss_mib_at_the_end": memory[-1],
    }


class _own_database:  # noqa: N801  # A context manager, named as it is read.
    """The migrated collections in a database of the benchmark's own."""

    def __enter__(self) -> None:
        from django.core.management import call_command
        from django.db import connections

        settings = connections["default"].settings_dict
        settings["NAME"] = f"{settings['NAME']}_bench_import"
        call_command("migrate", verbosity=0)
        _empty()

    def __exit__(self, *error: object) -> None:
        from django.db import connection

        database: Any = connection
        database.database.client.drop_database(connection.settings_dict["NAME"])


def _write_file(path: Path, lines: int) -> None:
    with path.open("wb") as file:
        for number in range(lines):
            line = {
                "traderId": f"T-{number % 3}",
                "traderPortfolio": "100000",
                "followerId": f"F-{number}",
                "followerPortfolio": f"{1000 + number}.50",
                "currency": "INR",
                "multiplier": "1",
                "allocation": None,
                "locale": "en",
                "timezone": "Asia/Kolkata",
                "endpoints": [{"channel": "fcm", "address": f"{number:0152x}", "platform": "android"}],
            }
            file.write(orjson.dumps(line) + b"\n")


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _timed_import(path: Path) -> tuple[float, list[int]]:
    """Seconds, and this process's memory in MiB after each chunk."""
    from followers.imports import import_followers

    memory: list[int] = []

    def note_memory(size: int) -> None:
        memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB // 1024)

    with path.open("rb") as source:
        seconds = _timed(lambda: import_followers(source, lambda line: None, note_memory))
    return seconds, memory


def _table(name: str) -> Any:
    from django.db import connection

    database: Any = connection
    return database.get_collection(name)


def _empty() -> None:
    for name in TABLES:
        _table(name).delete_many({})


def _documents() -> dict[str, list[dict[str, Any]]]:
    """What the import stored: the documents that the loop is to store too."""
    return {name: list(_table(name).find()) for name in TABLES}


def _chunks(documents: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(documents), CHUNK):
        yield documents[start : start + CHUNK]


def _raw_upserts(documents: dict[str, list[dict[str, Any]]]) -> None:
    from pymongo import UpdateOne

    keys = dict(zip(TABLES, KEYS, strict=True))
    for name in TABLES:
        for chunk in _chunks(documents[name]):
            statements = [
                UpdateOne(
                    {key: d[key] for key in keys[name]},
                    {"$set": {k: v for k, v in d.items() if k != "_id"}, "$setOnInsert": {"_id": d["_id"]}},
                    upsert=True,
                )
                for d in chunk
            ]
            _table(name).bulk_write(statements, ordered=False)


def _raw_inserts(documents: dict[str, list[dict[str, Any]]]) -> None:
    for name in TABLES:
        for chunk in _chunks(documents[name]):
            _table(name).insert_many(chunk, ordered=False)


if __name__ == "__main__":
    main()
