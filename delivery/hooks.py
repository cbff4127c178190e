"""Where vendors post their receipts. Whoever cannot show that they are the vendor is refused.

Answers: 2xx once a receipt is dealt with, also one that names nothing of ours (the vendor must not repeat it for ever);
400 for what cannot be read; 403 without the right signature or header; 404 while the hook is off; 413 for a body beyond
the limit; 503 while the database is away, so that the vendor repeats it.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from pymongo.errors import PyMongoError

from delivery.channels import onesignal_receipts, twilio_receipts
from delivery.channels.receipts import Receipt, Reference, parse_reference
from delivery.receipts import settle
from followers import clock
from followers.choices import Channel

logger = structlog.get_logger(__name__)

FORM_TYPE = "application/x-www-form-urlencoded"
TWILIO_MAX_BYTES = 64 * 1024
ONESIGNAL_MAX_BYTES = 1024 * 1024
RETRY_AFTER_SECONDS = 5
_away = threading.Event()  # Since the database did not answer; of this process.
Addressed = tuple[Reference, Receipt]


class RefusedError(Exception):
    """A request that is not dealt with, and the answer that says why."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@csrf_exempt
@require_POST
@never_cache
def twilio(request: HttpRequest, reference: str) -> HttpResponse:
    """A status callback (form, signed): MessageSid, MessageStatus, ErrorCode."""
    if not settings.PUBLIC_BASE_URL or not settings.TWILIO_AUTH_TOKEN:
        raise Http404("Status callbacks are off.")
    return _answer(Channel.SMS, lambda: _twilio_receipts(request, reference))


@csrf_exempt
@require_POST
@never_cache
def onesignal(request: HttpRequest) -> HttpResponse:
    """An event of the event stream, or a list of them (JSON, with our token in the Authorization header)."""
    if not settings.ONESIGNAL_HOOK_TOKEN:
        raise Http404("The event stream is off.")
    return _answer(Channel.ONESIGNAL, lambda: _onesignal_receipts(request))


def _answer(channel: Channel, read: Callable[[], Sequence[Addressed]]) -> HttpResponse:
    """Reads a request's receipts and carries them out."""
    try:
        addressed = read()
        for reference, receipt in addressed:
            settle(reference, channel, receipt, clock.now())
    except RefusedError as refused:
        logger.warning("A receipt was refused.", channel=channel, status=int(refused.status), reason=refused.reason)
        return _quietly(JsonResponse({"error": refused.reason}, status=refused.status))
    except PyMongoError as error:
        _note_absence(error)
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        words = {"error": "The database is away."}
        return _quietly(JsonResponse(words, status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers))
    if addressed and _away.is_set():
        _away.clear()
        logger.info("Receipts can be stored again.")
    return HttpResponse(status=HTTPStatus.NO_CONTENT)


def _note_absence(error: PyMongoError) -> None:
    """An absence is told once, not for every receipt of it."""
    if not _away.is_set():
        _away.set()
        logger.warning("Receipts cannot be stored; vendors are asked to repeat them.", error=str(error)[:200])


def _quietly(answer: HttpResponse) -> HttpResponse:
    """Without Django's own line about it: ours has the reason, and one for each would be thousands."""
    answer._has_been_logged = True  # type: ignore[attr-defined]  # Where Django itself notes that a line was written.
    return answer


def _twilio_receipts(request: HttpRequest, path: str) -> list[Addressed]:
    body = _body(request, TWILIO_MAX_BYTES)
    form = dict(QueryDict(body, encoding="utf-8").lists()) if request.content_type == FORM_TYPE else {}
    # The address that we gave out, whatever a proxy made of it on the way.
    url = f"{settings.PUBLIC_BASE_URL}{request.get_full_path()}"
    signature = request.headers.get("X-Twilio-Signature", "")
    if not twilio_receipts.is_genuine(signature, settings.TWILIO_AUTH_TOKEN, url, form, body):
        raise RefusedError(HTTPStatus.FORBIDDEN, "X-Twilio-Signature does not fit: is PUBLIC_BASE_URL the right one?")
    parameters = form or _texts(body)
    reference, receipt = parse_reference(path), twilio_receipts.receipt(parameters)
    if reference is None or receipt is None:
        logger.info("A status callback says nothing of ours.", status=parameters.get("MessageStatus", [""])[0][:32])
        return []
    return [(reference, receipt)]


def _texts(body: bytes) -> dict[str, list[str]]:
    """The texts of a JSON object, in the shape of a form's parameters."""
    content = _json(body)
    fields = content.items() if isinstance(content, dict) else ()
    return {name: [value] for name, value in fields if isinstance(value, str)}


def _onesignal_receipts(request: HttpRequest) -> list[Addressed]:
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if not hmac.compare_digest(given.encode(), settings.ONESIGNAL_HOOK_TOKEN.encode()):
        raise RefusedError(HTTPStatus.FORBIDDEN, "The Authorization header is not ONESIGNAL_HOOK_TOKEN.")
    content = _json(_body(request, ONESIGNAL_MAX_BYTES))
    events = content if isinstance(content, list) else [content]
    addressed = []
    for position, event in enumerate(events):
        found = _onesignal_receipt(event, position)
        if found is not None:
            addressed.append(found)
    if len(addressed) < len(events):
        logger.info("Events of OneSignal say nothing of ours.", events=len(events) - len(addressed))
    return addressed


def _onesignal_receipt(event: Any, position: int) -> Addressed | None:
    if not isinstance(event, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"Event {position} is not an object.")
    try:
        receipt = onesignal_receipts.receipt(event)
    except onesignal_receipts.EventError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"Event {position}: {error}.") from error
    reference = onesignal_receipts.reference(event)
    return None if receipt is None or reference is None else (reference, receipt)


def _body(request: HttpRequest, limit: int) -> bytes:
    """The body, read no further than the limit."""
    body: bytes = request.read(limit + 1)
    if len(body) > limit:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {limit} bytes.")
    return body


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "The body cannot be read.") from error
