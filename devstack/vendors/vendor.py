"""What every sandbox vendor shares: the sequence from a request to its answer, with the faults in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson

from devstack.vendors.behaviour import Behaviour, BehaviourError, Rule, parse_behaviour
from devstack.vendors.messages import JSON_HEADERS, Call, Ending, RefusedError, Reply, Request
from devstack.vendors.recorder import Recorder, new_id, now

MALFORMED_BODY = b'{"id": <!doctype html><title>upstream error</title>'
HTML_HEADERS = (("content-type", "text/html; charset=UTF-8"),)


class Vendor(ABC):
    """A vendor's protocol on top of the shared sequence.

    A request is validated first, as the vendor would; rules of the behaviour apply to valid requests only, so that
    no fault hides a mistake of the client.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, float]] = {}
    code_words: ClassVar[Mapping[str, str]]
    """The vendor's own code for each of `dead`, `throttled`, `unavailable` and `auth`."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.behaviour = Behaviour(options=dict(self.options))

    @abstractmethod
    def receive(self, request: Request) -> Call:
        """Understand and validate a request. Raises RefusedError with the vendor's answer."""

    @abstractmethod
    def accepted(self, call: Call, message_id: str, replayed: bool) -> Reply:
        """The vendor's answer to messages that it took over, now or (replayed) at an earlier call."""

    @abstractmethod
    def refusal(self, code: str | None, rule: Rule) -> RefusedError:
        """The vendor's refusal for a rule; without a code, the one that belongs to the rule's status.

        Raises BehaviourError for a code that the vendor does not have, unless the rule gives a status with it.
        """

    def message_id(self) -> str:
        """A new id in the vendor's form."""
        return new_id()

    def plain_address(self, address: str) -> str:
        """The form in which this vendor's addresses are recorded."""
        return address

    def code_for(self, rule: Rule, call: Call | None) -> str | None:
        """The vendor's code that a rule means; `call` is None while the rule is only checked."""
        return self.code_words.get(rule.code or "", rule.code)

    def fault_injected(self, call: Call, code: str) -> None:  # noqa: B027 - most vendors keep no such state.
        """A rule refused this call; for vendors that keep state about it."""

    # The service that a server sees.

    def connection_opened(self) -> None:
        self.recorder.connections_opened += 1
        self.recorder.connections_open += 1

    def connection_closed(self) -> None:
        self.recorder.connections_open -= 1

    def finished(self) -> None:
        self.recorder.finished()

    def handle(self, request: Request) -> Reply:
        self.recorder.started()
        rule = None
        try:
            call = self.receive(request)
            rule = self.behaviour.rule_for(call.route, call.address)
            reply = self._perform(call) if rule is None else self._perform_under(rule, call)
        except RefusedError as refused:
            self.recorder.refused[refused.code] += 1
            reply = refused.reply
        reply.delay_seconds = self.behaviour.delay_seconds(rule)
        return reply

    def _perform(self, call: Call) -> Reply:
        """Serve a valid call as the vendor does."""
        if call.answer is not None:
            return call.answer
        moment = now()
        earlier = self.recorder.replay_of(call.messages[0], moment)
        if earlier is not None:
            self.recorder.replays += 1
            return self.accepted(call, earlier.message_id, replayed=True)
        message_id = call.messages[0].given_id or self.message_id()
        for message in call.messages:
            self.recorder.accept(message, message_id, moment, self.behaviour.keep_bodies)
        return self.accepted(call, message_id, replayed=False)

    def _perform_under(self, rule: Rule, call: Call) -> Reply:
        """Serve a valid call as the rule wants it."""
        if rule.hang:
            return self._fault("hang", Ending.HANG)
        if rule.reset:
            return self._fault("reset", _ending_of(rule.reset))
        if rule.goaway is not None:
            reply = self._fault("goaway", Ending.GO_AWAY)
            reply.body = orjson.dumps({"reason": rule.goaway})
            return reply
        if rule.refuses:
            refused = self.refusal(self.code_for(rule, call), rule)
            self.fault_injected(call, refused.code)
            if rule.status is not None:
                refused.reply.status = rule.status
            if rule.body_override is not None:
                _override(refused.reply, rule.body_override)
            raise refused
        reply = self._perform(call)
        if rule.accept_then_reset:
            return self._fault("accept_then_reset", _ending_of(rule.accept_then_reset))
        if rule.malformed:
            self.recorder.faults["malformed"] += 1
            reply.body = MALFORMED_BODY
        elif rule.body_override is not None:
            _override(reply, rule.body_override)
        if rule.status is not None:
            reply.status = rule.status
        return reply

    def _fault(self, name: str, ending: Ending) -> Reply:
        self.recorder.faults[name] += 1
        return Reply(0, ending=ending)

    # What the control API sees.

    def behave(self, data: Mapping[str, Any]) -> None:
        """Replace the whole behaviour. Raises BehaviourError."""
        behaviour = parse_behaviour(data, self.options)
        for rule in behaviour.rules:
            if rule.refuses:
                self.refusal(self.code_for(rule, None), rule)  # Raises for an unknown code.
            if rule.match.address is not None:
                rule.match.address = self.plain_address(rule.match.address)
            if rule.match.addresses is not None:
                rule.match.addresses = [self.plain_address(address) for address in rule.match.addresses]
        self.behaviour = behaviour

    def reset(self) -> None:
        self.recorder.clear()
        self.behaviour.start_again()


def _ending_of(reset: bool | str) -> Ending:
    return Ending.RESET_STREAM if reset == "stream" else Ending.RESET


def _override(reply: Reply, body: Any) -> None:
    if isinstance(body, str):
        reply.body = body.encode()
        reply.headers = HTML_HEADERS if body.lstrip().startswith("<") else JSON_HEADERS
    else:
        reply.body = orjson.dumps(body)


def unknown_code(vendor: str, code: str | None, known: object) -> BehaviourError:
    return BehaviourError(f"{vendor} has no code {code!r}; known: {known}, or give a status with it")


def retry_after_header(seconds: float | None) -> tuple[tuple[str, str], ...]:
    """`Retry-After` in whole seconds, rounded up so that nobody comes back too early."""
    if seconds is None:
        return ()
    return (("retry-after", str(-int(-seconds // 1))),)
