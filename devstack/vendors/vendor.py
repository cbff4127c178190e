"""What every sandbox vendor shares: the sequence from a request to its answer, with the faults in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import orjson

from devstack.vendors import magic
from devstack.vendors.behaviour import Behaviour, BehaviourError, Rule, distinctive, parse_behaviour
from devstack.vendors.messages import JSON_HEADERS, Call, Ending, Message, RefusedError, Reply, Request
from devstack.vendors.receipts import Receipt, Receipts, Repeats
from devstack.vendors.recorder import Recorder, new_id, now

MALFORMED_BODY = b'{"id": <!doctype html><title>upstream error</title>'
RECEIPT_DELAY_MS = 20.0  # After the answer, unless a rule says otherwise.
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
    usual_receipts: ClassVar[Sequence[str]] = ()
    """What is told of a message later, in this order, where the client asked for it and no rule says otherwise."""
    receipt_words: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.behaviour = Behaviour(options=dict(self.options))
        self.receipts = Receipts(recorder)
        self._magic = magic.rules_of(self.name)
        self._magic_prefixes = tuple(rule.match.prefix or "" for rule in self._magic)

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

    def receipt(self, word: str, message: Message, message_id: str) -> Receipt | None:
        """The receipt that tells `word` of a message; None where the client asked for none, or vendors have none."""
        return None

    def receipt_repeats(self, call: Call) -> Repeats:
        """How often a receipt is repeated that the client did not take."""
        return Repeats()

    def check_receipts(self, words: Sequence[str]) -> None:
        """Raises BehaviourError for a word that this vendor never tells."""
        if unknown := sorted({word.partition(":")[0] for word in words} - self.receipt_words):
            raise BehaviourError(f"{self.name} has no receipts {unknown}; known: {sorted(self.receipt_words)}")

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
            rule = self.behaviour.rule_for(call.route, call.address) or self._magic_rule(call)
            reply = self._perform(call) if rule is None else self._perform_under(rule, call)
        except RefusedError as refused:
            self.recorder.refused[refused.code] += 1
            reply = refused.reply
        reply.delay_seconds = self.behaviour.delay_seconds(rule)
        if reply.message_id:
            self._tell(call, rule, reply)
        return reply

    def _magic_rule(self, call: Call) -> Rule | None:
        """What its address alone asks for (`magic`). Nearly no address is one: they are looked at all at once."""
        if not distinctive(call.address).startswith(self._magic_prefixes):
            return None
        matching = (rule for rule in self._magic if self.behaviour.takes(rule, call.route, call.address))
        return next(matching, None)

    def _tell(self, call: Call, rule: Rule | None, reply: Reply) -> None:
        """Post the receipts of a message that was taken over: after its answer, or before it where a rule says so."""
        words = self.usual_receipts if rule is None or rule.receipts is None else rule.receipts
        receipts = [self.receipt(word, message, reply.message_id) for message in call.messages for word in words]
        posted = [receipt for receipt in receipts if receipt is not None]
        if not posted:
            return
        repeats = self.receipt_repeats(call)
        if rule is not None and rule.receipts_first:
            reply.begin = partial(self.receipts.post, posted, 0.0, repeats)
            return
        wait = RECEIPT_DELAY_MS if rule is None or rule.receipt_delay_ms is None else rule.receipt_delay_ms
        self.receipts.post(posted, reply.delay_seconds + wait / 1000, repeats, None)

    def _perform(self, call: Call) -> Reply:
        """Serve a valid call as the vendor does."""
        if call.answer is not None:
            return call.answer
        moment = now()
        earlier = self.recorder.replay_of(call.messages[0], moment)
        if earlier is not None:
            self.recorder.replayed()
            return self.accepted(call, earlier.message_id, replayed=True)
        message_id = call.messages[0].given_id or self.message_id()
        for message in call.messages:
            self.recorder.accept(message, message_id, moment, self.behaviour.keep_bodies)
        reply = self.accepted(call, message_id, replayed=False)
        reply.message_id = message_id
        return reply

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
            dropped = self._fault("accept_then_reset", _ending_of(rule.accept_then_reset))
            dropped.message_id = reply.message_id
            return dropped
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
            self.check_receipts(rule.receipts or ())
            if rule.refuses:
                self.refusal(self.code_for(rule, None), rule)  # Raises for an unknown code.
            if rule.match.address is not None:
                rule.match.address = self.plain_address(rule.match.address)
            if rule.match.addresses is not None:
                rule.match.addresses = [self.plain_address(address) for address in rule.match.addresses]
        self.behaviour = behaviour

    def reset(self) -> None:
        self.receipts.forget()
        self.recorder.clear()
        self.behaviour.start_again()
        for rule in self._magic:
            rule.start_again()


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
