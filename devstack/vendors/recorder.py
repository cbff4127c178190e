"""What a sandbox vendor remembers: every accepted message, and the judgement whether a person saw one twice."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from devstack.vendors.messages import Message, Repeat


@dataclass(slots=True)
class Entry:
    """One accepted message."""

    index: int
    address: str
    at: float  # Epoch seconds.
    message_id: str
    key: str
    body: dict[str, Any] | None  # None where bodies are not kept.
    headers: dict[str, str] | None

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Journal:
    """Accepted and replayed messages on disk, one JSON object a line, written before the vendor answers.

    A vendor that is killed and comes back still knows what it accepted: otherwise a test that kills it could
    neither show that nothing was lost nor that nothing was sent twice.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.lines: list[dict[str, Any]] = []
        if resume and path.exists():
            kept = path.read_bytes()
            kept = kept[: kept.rfind(b"\n") + 1]  # A line torn by the kill was never answered.
            self.lines = [orjson.loads(line) for line in kept.splitlines()]
            os.truncate(path, len(kept))
        else:
            path.write_bytes(b"")
        self._file = path.open("ab", buffering=0)

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def clear(self) -> None:
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


class Recorder:
    """Counters and accepted messages of one vendor.

    `duplicates` counts the messages that a person saw again: accepted with the same address and content as an
    earlier one, and no key by which the vendor replaced or suppressed it. `repeats_under_key` were accepted again
    and took the earlier one's place on the device; `replays` were answered again and not sent.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.notes: dict[str, str] = {}
        self._clear()
        for line in journal.lines:
            self._restore(line)
        journal.lines = []

    def _clear(self) -> None:
        self.requests = 0
        self.refused: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.receipts: Counter[str] = Counter()  # What was told and how it was answered: "delivered 204".
        self.duplicates = 0
        self.repeats_under_key = 0
        self.replays = 0
        self.in_flight = getattr(self, "in_flight", 0)  # What is under way stays under way.
        self.peak_in_flight = self.in_flight
        self.connections_open = getattr(self, "connections_open", 0)
        self.connections_opened = 0
        self.entries: list[Entry] = []
        self._by_identity: dict[str, Entry] = {}
        self._contents: set[bytes] = set()

    def clear(self) -> None:
        """Forget messages and counters; what a client may rely on (opened channels) stays."""
        self._clear()
        self._journal.clear()
        for name, value in self.notes.items():
            self._journal.write({"note": name, "value": value})

    # Traffic.

    def started(self) -> None:
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def finished(self) -> None:
        self.in_flight -= 1

    # Messages.

    def replay_of(self, message: Message, now: float) -> Entry | None:
        """The earlier message that the vendor would answer for again instead of sending this one."""
        if message.repeat is not Repeat.REPLAYED:
            return None
        earlier = self._by_identity.get(message.identity)
        if earlier is None or now - earlier.at > message.replay_seconds:
            return None
        return earlier

    def accept(self, message: Message, message_id: str, now: float, keep_body: bool) -> Entry:
        """Record a message as taken over and judge whether the person sees it twice."""
        seen = blake2b(message.address.encode() + b"\0" + message.content, digest_size=16).digest()
        entry = Entry(
            index=len(self.entries),
            address=message.address,
            at=now,
            message_id=message_id,
            key=message.key,
            body=message.body if keep_body else None,
            headers=message.headers if keep_body else None,
        )
        identity = message.identity if message.repeat is not Repeat.SHOWN else ""
        replaces = message.repeat is Repeat.REPLACED
        self._add(entry, identity, replaces, seen)
        self._journal.write({"entry": entry.as_json(), "identity": identity, "replaces": replaces, "seen": seen.hex()})
        return entry

    def _add(self, entry: Entry, identity: str, replaces: bool, seen: bytes) -> None:
        if replaces and identity in self._by_identity:
            self.repeats_under_key += 1
        elif seen in self._contents:
            self.duplicates += 1
        self._contents.add(seen)
        if identity:
            self._by_identity[identity] = entry
        self.entries.append(entry)

    def replayed(self) -> None:
        """A message was answered for again and not sent."""
        self.replays += 1
        self._journal.write({"replays": 1})

    # What a vendor has to remember beside messages.

    def note(self, name: str, value: str) -> None:
        if self.notes.get(name) != value:
            self.notes[name] = value
            self._journal.write({"note": name, "value": value})

    def _restore(self, line: dict[str, Any]) -> None:
        if "note" in line:
            self.notes[line["note"]] = line["value"]
        elif "replays" in line:
            self.replays += line["replays"]
        else:
            self._add(Entry(**line["entry"]), line["identity"], line["replaces"], bytes.fromhex(line["seen"]))

    # Reading.

    def stats(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "accepted": len(self.entries),
            "refused": dict(self.refused),
            "duplicates": self.duplicates,
            "repeats_under_key": self.repeats_under_key,
            "replays": self.replays,
            "faults": dict(self.faults),
            "warnings": dict(self.warnings),
            "receipts": dict(self.receipts),
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "connections_open": self.connections_open,
            "connections_opened": self.connections_opened,
            "first_accepted_at": self.entries[0].at if self.entries else None,
            "last_accepted_at": self.entries[-1].at if self.entries else None,
        }

    def accepted(self, address: str | None, since_index: int, limit: int) -> list[Entry]:
        found: list[Entry] = []
        for entry in self.entries[since_index:]:
            if address is None or entry.address == address:
                found.append(entry)
                if len(found) >= limit:
                    break
        return found


def new_id() -> str:
    return str(uuid4())


def now() -> float:
    """The one clock of the sandbox, in epoch seconds: it has to agree across restarts and with the tokens' times."""
    return time.time()
