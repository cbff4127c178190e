"""A follower's inbox, kept in step with NotifyHub: REST for what is stored, the socket for what is new.

    pip install requests websockets        # Python 3.11 or newer
    NOTIFYHUB_KEY=nh_… python inbox_client.py https://notifyhub.example F-1 [--read]

Copy `InboxClient`. The key is a service's (scope `tokens:mint`) and stays on your back end: an app asks that for its
token.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import requests
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

TIMEOUT_SECONDS = (5, 30)  # To connect; to be answered, which is longer than the server's own patience.
ATTEMPTS = 5
PING_EVERY_SECONDS, PONG_WITHIN_SECONDS = 25, 10
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15
MOST_KNOWN_IDS = 500  # What the server takes in one `resume`.
UNAUTHORISED, FORBIDDEN = 4401, 4403

Entry = dict[str, Any]


class NotLetInError(Exception):
    """Neither another try nor another token helps: show no inbox."""


class InboxClient:
    """The alerts of one follower, in `inbox` by their ids.

    Parameters:
      host: NotifyHub's address, such as https://notifyhub.example.
      get_token: Gives a new token; called only when there is none or it was refused.
      on_change: Is told of `new`, `gone`, `read` and `unread` entries. Where it calls for more, use `mark_read`.
    """

    def __init__(self, host: str, get_token: Callable[[], str], on_change: Callable[[str, Entry], None]) -> None:
        self.inbox: dict[str, Entry] = {}
        self._host, self._get_token, self._on_change = host.rstrip("/"), get_token, on_change
        self._token = ""
        self._failures = 0
        self._since = ""  # The `created_at` of the newest entry: from there a broken line is resumed.
        self._clock_ahead = timedelta()  # The server's clock says what has expired; ours may be wrong.
        self._to_read: deque[str] = deque()
        self._http = requests.Session()

    @property
    def unread(self) -> int:
        """For the badge. A client that keeps only a page takes the count that `unread_count.changed` says."""
        return sum(entry["read_at"] is None for entry in self.inbox.values())

    def mark_read(self, entry_id: str) -> None:
        """A person has seen it. Sent soon; when the line is back, if it is down."""
        self._to_read.append(entry_id)

    def run(self) -> None:
        """Keeps the inbox in step, for good. Raises NotLetInError."""
        while True:
            try:
                url = f"{self._host.replace('http', 'ws', 1)}/ws/inbox/"
                protocols: Any = ["notifyhub.v1", self._current_token()]
                with connect(url, subprotocols=protocols, open_timeout=10, close_timeout=1) as socket:
                    self._listen(socket)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else None  # None: the line broke.
                if code == FORBIDDEN:
                    raise NotLetInError(closed.rcvd.reason if closed.rcvd else "") from closed
                if code == UNAUTHORISED:
                    self._token = ""
            except (OSError, WebSocketException):  # No line, no answer, or no handshake.
                pass
            time.sleep(pause_seconds(self._failures))
            self._failures += 1

    # --- The socket ---------------------------------------------------------------------------------------------------
    def _listen(self, socket: ClientConnection) -> None:
        if self._since:
            known = list(self.inbox)[-MOST_KNOWN_IDS:]
            socket.send(json.dumps({"type": "resume", "since": self._since, "known": known}))
        is_ready = False
        ping_at, pong_by = time.monotonic(), float("inf")
        while True:
            now = time.monotonic()
            if now >= ping_at:
                socket.send('{"type": "ping"}')
                ping_at, pong_by = now + PING_EVERY_SECONDS, now + PONG_WITHIN_SECONDS
            while self._to_read and is_ready:
                self._call("PATCH", f"inbox/{self._to_read[0]}/read")
                self._to_read.popleft()
            self._drop_expired()
            try:
                frame = json.loads(socket.recv(timeout=1))
            except TimeoutError:
                if time.monotonic() > pong_by:
                    raise  # The line is dead.
                continue
            pong_by = float("inf")
            self._take(frame, socket)
            if frame["type"] == "unread_count.changed" and not is_ready:
                # From now on all that is new is told: the time to look at what is stored.
                is_ready, self._failures = True, 0
                self._list(socket)

    def _take(self, frame: Entry, socket: ClientConnection) -> None:
        match frame["type"]:
            case "notification.created":
                self._keep({name: value for name, value in frame.items() if name != "type"}, socket)
            case "notification.updated":
                if entry := self.inbox.get(frame["id"]):
                    self._keep({**entry, "read_at": frame["read_at"]}, socket)
            case "notification.removed":
                self._drop(frame["id"])
            case "pong":
                self._clock_ahead = datetime.fromisoformat(frame["now"]) - datetime.now(UTC)

    def _keep(self, entry: Entry, socket: ClientConnection) -> None:
        """Takes an entry as it is now; one that we have may come again."""
        known = self.inbox.get(entry["id"])
        self.inbox[entry["id"]] = entry
        self._since = max(self._since, entry["created_at"])
        if known is None:
            socket.send(json.dumps({"type": "ack", "id": entry["id"], "event": "received"}))
            self._on_change("new", entry)
        elif known["read_at"] != entry["read_at"]:
            self._on_change("read" if entry["read_at"] else "unread", entry)

    def _drop(self, entry_id: str) -> None:
        if entry := self.inbox.pop(entry_id, None):
            self._on_change("gone", entry)

    def _drop_expired(self) -> None:
        """Nobody tells when an alert's time is over: its `expires_at` says it, by the server's clock."""
        now = datetime.now(UTC) + self._clock_ahead
        for entry in [e for e in self.inbox.values() if datetime.fromisoformat(e["expires_at"]) <= now]:
            self._drop(entry["id"])

    # --- REST ---------------------------------------------------------------------------------------------------------
    def _list(self, socket: ClientConnection) -> None:
        """The whole inbox, page by page: also tells what became of entries beyond those that a resume can name."""
        stored: dict[str, Entry] = {}
        query = "limit=100"
        while query:
            page = self._call("GET", f"inbox/?{query}")
            stored |= {entry["id"]: entry for entry in page["results"]}
            query = urlsplit(page["next"] or "").query
        for entry_id in self.inbox.keys() - stored.keys():
            self._drop(entry_id)
        for entry in reversed(stored.values()):  # The oldest first, as they came.
            self._keep(entry, socket)

    def _call(self, method: str, path: str) -> Any:
        """The answer's body; None if there is none, or no such thing any more. Raises requests.RequestException."""
        for attempt in range(ATTEMPTS):
            headers = {"Authorization": f"Bearer {self._current_token()}"}
            answer = self._http.request(method, f"{self._host}/api/v1/{path}", headers=headers, timeout=TIMEOUT_SECONDS)
            if answer.status_code == requests.codes.unauthorized:
                self._token = ""
            elif answer.status_code == requests.codes.forbidden:
                raise NotLetInError(answer.json()["code"])
            elif answer.status_code == requests.codes.too_many_requests or answer.status_code >= 500:
                time.sleep(float(answer.headers.get("Retry-After", 0)) + pause_seconds(attempt))
            elif answer.status_code == requests.codes.not_found:
                return None
            else:
                break
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _current_token(self) -> str:
        self._token = self._token or self._get_token()
        return self._token


def pause_seconds(failures: int) -> float:
    """Grows from try to try, and never the same for two clients: so they do not all come back at once."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures, 10))
    return longest * random.uniform(0.5, 1)


def mint_token(host: str, key: str, follower_id: str) -> str:
    """What your back end does for whoever is signed in to it."""
    answer = requests.post(
        f"{host}/api/v1/tokens/",
        json={"follower_id": follower_id},
        headers={"Authorization": f"Api-Key {key}"},
        timeout=TIMEOUT_SECONDS,
    )
    if answer.status_code in (401, 403, 404):
        raise NotLetInError(answer.json()["code"])
    answer.raise_for_status()
    return str(answer.json()["token"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints what happens in a follower's inbox.")
    parser.add_argument("host")
    parser.add_argument("follower_id")
    parser.add_argument("--read", action="store_true", help="what is printed counts as read")
    options = parser.parse_args()

    def show(what: str, entry: Entry) -> None:
        print(what, entry["id"], entry["payload"]["title"], flush=True)
        if what == "new" and options.read and not entry["read_at"]:
            client.mark_read(entry["id"])

    key = os.environ["NOTIFYHUB_KEY"]
    client = InboxClient(options.host, lambda: mint_token(options.host, key, options.follower_id), show)
    client.run()


if __name__ == "__main__":
    main()
