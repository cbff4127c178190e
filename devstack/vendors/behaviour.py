"""How a sandbox vendor misbehaves: latency and an ordered list of rules, the first that matches counts.

Everything is deterministic: a fraction picks addresses by a seeded hash, or requests by a seeded generator.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import Any


class BehaviourError(ValueError):
    """A behaviour that makes no sense, said so that its author can mend it."""


@dataclass(slots=True)
class Match:
    """Which requests a rule is for: those that meet every condition given; none given = all of them."""

    route: str = "send"  # `send`; `token` (FCM's OAuth endpoint); `open_dm` (Discord); `*` = every route.
    address: str | None = None
    addresses: list[str] | None = None
    prefix: str | None = None  # How the address begins; of a webhook, its token.
    fraction: float | None = None  # 0..1
    fraction_of: str = "addresses"  # or `requests`: by address the same ones always, by request at random.
    every: int | None = None  # Every n-th request that meets the conditions above.
    first_n: int | None = None  # Only the first n requests that meet the conditions above.
    first_n_per_address: int | None = None


@dataclass(slots=True)
class Rule:
    """What happens to the requests it matches. Without status, code or an ending the request is served as usual."""

    match: Match
    status: int | None = None  # 400 and above: the vendor refuses.
    code: str | None = None  # The vendor's own code, or one of `dead`, `throttled`, `unavailable`, `auth`.
    message: str | None = None
    retry_after: float | None = None  # Seconds, given in the vendor's own form, where it has one.
    scope: str = "user"  # Discord's X-RateLimit-Scope: user, global or shared.
    timestamp_ms: int | None = None  # APNs 410: when the token became invalid; now if not given.
    body_override: Any = None  # Text as it is, anything else as JSON, in place of the vendor's body.
    latency_ms: float | None = None  # In place of the vendor's latency.
    hang: bool = False  # Never answered, not accepted.
    reset: bool | str = False  # The connection is dropped after the body was read; "stream": that HTTP/2 stream.
    accept_then_reset: bool | str = False  # Accepted, then dropped unanswered; "stream" as above.
    goaway: str | None = None  # APNs: GOAWAY with this reason; the request is not processed.
    malformed: bool = False  # Accepted, but the answer's body is not what the vendor's documents promise.
    receipts: list[str] | None = None  # What is told later, in this order: Twilio's statuses, OneSignal's events, with
    # a code or reason behind a colon ("undelivered:30003"); [] = nothing; the usual ones if not given.
    receipt_delay_ms: float | None = None  # From the answer to the first receipt.
    receipts_first: bool = False  # The answer comes once the client has answered the receipts.
    _met: int = 0
    _met_by_address: Counter[str] = field(default_factory=Counter)

    @property
    def refuses(self) -> bool:
        return self.code is not None or (self.status is not None and self.status >= 400)

    def start_again(self) -> None:
        self._met = 0
        self._met_by_address.clear()

    def matches(self, route: str, address: str, seed: int, generator: random.Random) -> bool:
        """Whether the rule takes this request; asking counts it."""
        return self._meets(route, address, seed, generator) and self._is_its_turn(address)

    def _meets(self, route: str, address: str, seed: int, generator: random.Random) -> bool:
        match = self.match
        if match.route not in (route, "*"):
            return False
        if match.address not in (None, address) or (match.addresses is not None and address not in match.addresses):
            return False
        if match.prefix is not None and not distinctive(address).startswith(match.prefix):
            return False
        if match.fraction is None:
            return True
        share = generator.random() if match.fraction_of == "requests" else share_of(address, seed)
        return share < match.fraction

    def _is_its_turn(self, address: str) -> bool:
        match = self.match
        self._met += 1
        if match.every is not None and self._met % match.every:
            return False
        if match.first_n is not None and self._met > match.first_n:
            return False
        if match.first_n_per_address is not None:
            self._met_by_address[address] += 1
            return self._met_by_address[address] <= match.first_n_per_address
        return True


def distinctive(address: str) -> str:
    """The part of an address that its owner chooses: all of it, of a webhook (`{id}/{token}`) the token."""
    return address.rpartition("/")[2]


def share_of(address: str, seed: int) -> float:
    """A number in [0, 1) that depends on the address and the seed alone."""
    digest = blake2b(address.encode(), digest_size=8, salt=(seed % 2**64).to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(slots=True)
class Behaviour:
    """One vendor's present behaviour; the default is a vendor at its best."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0  # Added to the latency, uniform between 0 and this.
    seed: int = 0
    keep_bodies: bool = True  # Off for benchmarks: accepted messages are counted, their bodies forgotten.
    options: dict[str, float] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    _generator: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._generator.seed(self.seed)

    def start_again(self) -> None:
        """Let every rule count from the beginning."""
        self._generator.seed(self.seed)
        for rule in self.rules:
            rule.start_again()

    def rule_for(self, route: str, address: str) -> Rule | None:
        for rule in self.rules:
            if self.takes(rule, route, address):
                return rule
        return None

    def takes(self, rule: Rule, route: str, address: str) -> bool:
        """Whether the rule takes this request; asking counts it."""
        return rule.matches(route, address, self.seed, self._generator)

    def delay_seconds(self, rule: Rule | None) -> float:
        milliseconds = self.latency_ms if rule is None or rule.latency_ms is None else rule.latency_ms
        if self.jitter_ms:
            milliseconds += self._generator.uniform(0, self.jitter_ms)
        return milliseconds / 1000


def parse_behaviour(data: Mapping[str, Any], options: Mapping[str, float]) -> Behaviour:
    """A behaviour from the control API's JSON.

    `options` are the vendor's own knobs with their defaults. Raises BehaviourError for what it does not know.
    """
    known = {"latency_ms", "jitter_ms", "seed", "keep_bodies", "rules", *options}
    if unknown := set(data) - known:
        raise BehaviourError(f"unknown behaviour {sorted(unknown)}; known: {sorted(known)}")
    return Behaviour(
        latency_ms=float(data.get("latency_ms", 0)),
        jitter_ms=float(data.get("jitter_ms", 0)),
        seed=int(data.get("seed", 0)),
        keep_bodies=bool(data.get("keep_bodies", True)),
        options={name: float(data.get(name, default)) for name, default in options.items()},
        rules=[parse_rule(rule) for rule in data.get("rules", [])],
    )


def parse_rule(data: Mapping[str, Any]) -> Rule:
    values = {name: value for name, value in data.items() if name != "match"}
    rule = Rule(match=_build(Match, data.get("match", {})), **_known(Rule, values))
    if rule.match.fraction_of not in ("addresses", "requests"):
        raise BehaviourError("fraction_of is `addresses` or `requests`")
    for count in (rule.match.every, rule.match.first_n, rule.match.first_n_per_address):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise BehaviourError("every, first_n and first_n_per_address are whole numbers from 1")
    return rule


def _build(kind: type[Match], data: Mapping[str, Any]) -> Match:
    return kind(**_known(kind, data))


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(kind) if not f.name.startswith("_")}
    if unknown := set(data) - names:
        raise BehaviourError(f"unknown {kind.__name__.lower()} fields {sorted(unknown)}; known: {sorted(names)}")
    return dict(data)
