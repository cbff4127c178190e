"""One round after the other: load, strike, recovery, judgement. Needs Django set up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.core.management import get_commands
from pymongo.errors import PyMongoError

from devstack import commands
from devstack.chaos.faults import Fault
from devstack.chaos.judge import Judge
from devstack.chaos.logs import LogWatch
from devstack.chaos.report import Round
from devstack.chaos.system import READY_SECONDS
from devstack.errors import ServerFailedError

if TYPE_CHECKING:
    from devstack.chaos.load import Accepted
    from devstack.chaos.system import System

WARM_UP_SECONDS = (1.0, 2.5)
STRIKES = 6
"""How often a fault may miss before the run fails."""
AFTER_SECONDS = 1.0
LIVE_SECONDS = 8.0
"""How long apps may wait for what is stored before they ask for it: web processes look for losses every 5 s."""
LOOK_SECONDS = 0.1


class Run:
    """All rounds on one system.

    Parameters:
      settle_seconds: how long everything may take to be settled after a fault.
    """

    def __init__(self, system: System, settle_seconds: float) -> None:
        self.rounds: list[Round] = []
        self.waited_for: dict[str, float] = {}
        """What was open after the last fault, and until when, in seconds since it ended."""
        self._system = system
        self._settle_seconds = settle_seconds
        self.unheard = 0
        """Alerts of the last round that apps only heard of when they asked for what they had missed."""
        self._judge = Judge(system.audience, system.sandbox)
        self._judged = 0  # Trades that came to an end in an earlier round; what did not is judged again.
        self._mark = self._judge.mark()
        self._can_prove = "prove" in get_commands()

    def play(self, faults: Sequence[Fault], tell: Callable[[Round], None]) -> None:
        """Strike with each fault, and tell of each round as it ends."""
        for fault in faults:
            self.rounds.append(self._round(fault))
            tell(self.rounds[-1])

    def _round(self, fault: Fault) -> Round:
        system = self._system
        began = datetime.now(UTC)
        starts = {name: system.supervisor.starts(name) for name in system.supervisor.services}
        system.load.resume()
        time.sleep(system.random.uniform(*WARM_UP_SECONDS))
        watch = LogWatch(system.logs)
        in_flight = strikes = 0
        while not in_flight and strikes < STRIKES:
            strikes += 1
            in_flight = fault.strike(system)
            ended = time.monotonic()
            system.supervisor.wait_until_ready(READY_SECONDS)
        time.sleep(AFTER_SECONDS)
        log_lines = watch.lines()
        system.load.pause()
        trades = system.load.accepted[self._judged :]
        recovered_after = self._settled(trades, ended)
        verdict = self._judge.judge(trades, self._mark)
        if recovered_after is not None:
            self._judged += len(trades)
            self._mark = self._judge.mark()
        return Round(
            fault=fault.name,
            in_flight=in_flight,
            strikes=strikes,
            recovered_after=recovered_after,
            waited_for=self.waited_for,
            unheard=self.unheard,
            verdict=verdict,
            restarts={n: system.supervisor.starts(n) - before for n, before in starts.items()},
            log_lines=log_lines,
            is_outage=fault.is_outage,
            proof=self._prove(began),
        )

    def _settled(self, trades: Sequence[Accepted], since: float) -> float | None:
        """Wait until every accepted trade is settled and every app has heard of it; seconds since the fault ended."""
        self.waited_for, self.unheard, settled_at = {}, 0, None
        deadline = time.monotonic() + self._settle_seconds
        while time.monotonic() < deadline:
            try:
                open_ = {"alerts": self._judge.unsettled(trades), "sockets": self._system.sockets.missing()}
            except PyMongoError:
                continue  # It has been away until a moment ago.
            waited = round(time.monotonic() - since, 1)
            if not any(open_.values()):
                return waited
            if not open_["alerts"]:
                settled_at = settled_at or time.monotonic()
                if not self.unheard and time.monotonic() - settled_at > LIVE_SECONDS:
                    self.unheard = open_["sockets"]
                    self._system.sockets.resume()
            self.waited_for |= {what: waited for what, count in open_.items() if count}
            time.sleep(LOOK_SECONDS)
        return None

    def _prove(self, since: datetime) -> str:
        """What `manage.py prove` finds missing; nothing where everybody was told."""
        if not self._can_prove:
            return ""
        name = f"prove.{len(self.rounds)}"
        try:
            self._system.children.run(name, [*commands.MANAGE, "prove", "--since", since.isoformat()])
        except ServerFailedError as error:
            return str(error)
        return ""
