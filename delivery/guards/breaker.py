"""The circuit breaker: its states, and what moves it from one to the next. No clock, no network, no Django.

closed ──(too many failures or slow calls)──► open ──(pause over)──► half open ──(probes go well)──► closed
                                               ▲                        │
                                               └──(one goes wrong: twice the pause)

Every change is a function from one state to the next, so that workers can share a state by compare-and-set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from delivery.choices import BreakerStatus
from delivery.guards.calls import LATELY_SECONDS, WINDOW_SECONDS, Counts
from delivery.guards.waves import WAVE_REASON

MIN_CALLS = 20
"""Fewer calls in the window say nothing."""
BAD_SHARE = 0.6
"""Opens above this share of failed or slow calls."""
PROBES = 3
"""Sends that a half open breaker lets through at a time; that many must go well to close it."""
MAX_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class State:
    """Where a breaker stands. Times are epoch seconds."""

    status: BreakerStatus = BreakerStatus.CLOSED
    since: float = 0.0
    reason: str = ""
    pause_seconds: float = 0.0  # Between the opening and the next probe; doubles while probes fail.
    probe_at: float = 0.0  # Open: when the next probe may go out. Half open: when missing answers are given up.
    probes_left: int = 0  # Half open: probes that nobody has taken yet.
    successes: int = 0

    @property
    def is_wave(self) -> bool:
        """Not closed, because every address was refused alike."""
        return self.status is not BreakerStatus.CLOSED and self.reason.endswith(WAVE_REASON)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> State:
        """A state as another release may have stored it: what this one does not know is left out."""
        known = {name: stored[name] for name in cls.__dataclass_fields__ if name in stored}
        return cls(**{**known, "status": BreakerStatus(stored["status"])})


def judge(state: State, counts: Counts, lately: Counts, now: float, first_pause_seconds: float) -> State:
    """closed → open where the window speaks against the vendor, or the newest part of it without a good answer between;
    otherwise as it was.

    Parameters:
      counts, lately: Of the window, and of its last LATELY_SECONDS; both only since the breaker closed.
    """
    if state.status is not BreakerStatus.CLOSED:
        return state
    if counts.calls >= MIN_CALLS and counts.bad > BAD_SHARE * counts.calls:
        return opened(state, now, first_pause_seconds, describe(counts, WINDOW_SECONDS))
    if lately.calls >= MIN_CALLS and lately.bad == lately.calls:
        return opened(state, now, first_pause_seconds, describe(lately, LATELY_SECONDS))
    return state


def tripped(state: State, now: float, first_pause_seconds: float, reason: str) -> State:
    """closed → open, whatever the counts say; otherwise as it was, but that a wave becomes the reason."""
    if state.status is BreakerStatus.CLOSED:
        return opened(state, now, first_pause_seconds, reason)
    return replace(state, reason=reason) if reason.endswith(WAVE_REASON) and not state.is_wave else state


def describe(counts: Counts, seconds: int) -> str:
    """The counts in words, for staff."""
    parts = [f"{counts.failed} failed"] if counts.failed else []
    parts += [f"{counts.slow} slow or unanswered"] if counts.slow else []
    return f"{' and '.join(parts) or 'none bad'} of {counts.calls} calls within {seconds} s"


def opened(state: State, now: float, pause_seconds: float, reason: str) -> State:
    """→ open: nothing is sent until the pause is over."""
    pause = min(pause_seconds, MAX_PAUSE_SECONDS)
    return State(BreakerStatus.OPEN, now, reason, pause, probe_at=now + pause)


def take_probes(state: State, wanted: int, now: float, answer_seconds: float) -> tuple[State, int]:
    """open, pause over → half open, and up to `wanted` of its probes for the caller; 0 = all are taken.

    Parameters:
      answer_seconds: After so long probes whose worker never reported are given up, and new ones handed out.
    """
    if state.status is BreakerStatus.CLOSED:
        return state, 0
    due = now >= state.probe_at
    if state.status is BreakerStatus.OPEN and not due:
        return state, 0
    if due:  # The pause is over, or whoever took the probes has died with them.
        since = now if state.status is BreakerStatus.OPEN else state.since
        state = replace(
            state,
            status=BreakerStatus.HALF_OPEN,
            since=since,
            probes_left=PROBES - state.successes,
            probe_at=now + answer_seconds,
        )
    granted = min(wanted, state.probes_left)
    return replace(state, probes_left=state.probes_left - granted), granted


def probed(state: State, went_well: bool, now: float) -> State:
    """What one probe found: half open → closed after PROBES successes, → open again at the first failure."""
    if state.status is not BreakerStatus.HALF_OPEN:
        return state
    if not went_well:
        reason = state.reason if state.is_wave else "A probe failed or was slow"
        return opened(state, now, state.pause_seconds * 2, reason)
    successes = state.successes + 1
    if successes >= PROBES:
        return State(BreakerStatus.CLOSED, now, f"{successes} probes went well")
    return replace(state, successes=successes)


def put_back(state: State, probes: int) -> State:
    """Probes that were taken and not used."""
    if state.status is not BreakerStatus.HALF_OPEN:
        return state
    return replace(state, probes_left=min(PROBES - state.successes, state.probes_left + probes))
