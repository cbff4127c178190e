"""A follower's calls about themselves: preferences and devices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from followers import clock, profile, upserts
from followers.addresses import mask_address
from followers.api.codes import ErrorCode
from followers.api.errors import ProblemError
from followers.api.person_serializers import (
    DeviceSerializer,
    DevicesSerializer,
    DeviceToRegister,
    DeviceToRemove,
    PreferencesChange,
    PreferencesSerializer,
)
from followers.api.schema import BODY, ENDPOINT_ID, NO_BODY, POSTED, answered, asked, path_id, problems
from followers.choices import PUSH_CHANNELS
from followers.members import BadValueError, read_address
from followers.models import Endpoint, Follower
from followers.preferences import DEFAULT, PreferencesError, merge
from notifications.api.views import FollowerView

QUIET = {"quiet_hours": {"start": "22:00", "end": "07:00"}, "channels": {"sms": "critical_only"}}
PREFERENCES = merge(None, QUIET).as_document()
DEVICE = {
    "channel": "fcm",
    "address": "dK3x:APA91b-a-push-token",
    "platform": "android",
    "app": "com.example.copytrade",
}
SHOWN = {
    "id": ENDPOINT_ID, "channel": "fcm", "address": "dK3x…oken", "platform": "android", "app": "com.example.copytrade",
    "environment": "production", "active": True, "deactivated_reason": "", "registered_at": "2026-11-21T09:15:00Z",
}  # fmt: skip


class PreferencesView(FollowerView):
    @extend_schema(
        operation_id="preferences",
        tags=["Follower"],
        summary="Show my preferences",
        description="What the follower wants to be told, where and when; what they never said is the default.",
        responses={200: PreferencesSerializer, **problems(404)},
        examples=[answered("Quiet nights", PREFERENCES)],
    )
    def get(self, request: Request) -> Response:
        wanted = profile.preferences_of(request.user.follower_id)
        if wanted is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(wanted.as_document())

    @extend_schema(
        operation_id="preferences_change",
        tags=["Follower"],
        summary="Change my preferences",
        description="What is left out stays, null brings a field back to its default. Of `channels` those that are "
        "left out stay; `quiet_hours` and `min_value` are replaced as a whole. A name that is not known is refused. "
        "The answer is all of the preferences.",
        request=PreferencesChange,
        responses={200: PreferencesSerializer, **problems(404, 409, *BODY)},
        examples=[asked("Quiet nights", QUIET), answered("All of them", PREFERENCES)],
    )
    def patch(self, request: Request) -> Response:
        try:
            wanted = profile.change_preferences(request.user.follower_id, request.data)
        except PreferencesError as error:
            raise ValidationError(_nested(error.errors)) from error
        except profile.ChangedMeanwhileError as error:
            words = "Somebody else changes the same preferences; try again."
            raise ProblemError(ErrorCode.REQUEST_IN_PROGRESS, words, {"Retry-After": "1"}) from error
        if wanted is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(wanted.as_document())


class DevicesView(FollowerView):
    @extend_schema(
        operation_id="devices",
        tags=["Follower"],
        summary="List my devices",
        description="And other addresses; the newest first, masked, those that were signed off as well.",
        responses={200: DevicesSerializer, **problems()},
        examples=[answered("A phone", {"results": [SHOWN]})],
    )
    def get(self, request: Request) -> Response:
        return Response({"results": [_shown(row) for row in profile.devices(request.user.follower_id)]})

    @extend_schema(
        operation_id="devices_register",
        tags=["Follower"],
        summary="Register a device",
        description="At each start of the app, and whenever its push token changes. The same again changes nothing; a "
        "token belongs to whoever registered it last, and one that was signed off comes back. Phone numbers and "
        "webhooks are registered by services.",
        request=DeviceToRegister,
        responses={200: DeviceSerializer, 201: DeviceSerializer, **problems(404, *POSTED)},
        examples=[asked("An Android phone", DEVICE), answered("Registered", SHOWN, 200, 201)],
    )
    def post(self, request: Request) -> Response:
        address = _address(request)
        me = request.user.follower_id
        if not Follower.objects.filter(pk=me).exists():
            raise ProblemError(ErrorCode.NOT_FOUND)
        (row,) = upserts.write_endpoints([(address, {"follower_id": me})])
        device = Endpoint.objects.filter(pk=row.id).first()
        if device is None:  # Erased meanwhile, so that it was withdrawn.
            raise ProblemError(ErrorCode.FOLLOWER_UNKNOWN)
        return Response(_shown(device), 201 if row.outcome is upserts.Outcome.CREATED else 200)

    @extend_schema(
        operation_id="devices_remove_address",
        tags=["Follower"],
        summary="Sign a device off by its token",
        description="At a log-out, when the app knows its push token but not the device's id. The body is needed: some "
        "HTTP libraries send none with DELETE unless they are told to.",
        request=DeviceToRemove,
        responses={204: NO_BODY, **problems(404, *BODY)},
        examples=[asked("An Android phone", {name: DEVICE[name] for name in ("channel", "address")})],
    )
    def delete(self, request: Request) -> Response:
        address = _address(request)
        if not profile.sign_off_address(request.user.follower_id, clock.now(), address.channel, address.address):
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(status=204)


class DeviceView(FollowerView):
    @extend_schema(
        operation_id="devices_remove",
        tags=["Follower"],
        summary="Sign a device off",
        description="Nothing is sent to it any more, until it is registered again.",
        parameters=[path_id("device_id", "The device's id, from the list or its registration.", ENDPOINT_ID)],
        responses={204: NO_BODY, **problems(404)},
    )
    def delete(self, request: Request, device_id: str) -> Response:
        if not profile.sign_off(request.user.follower_id, clock.now(), ObjectId(device_id)):
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(status=204)


def _nested(errors: Mapping[str, str]) -> Any:
    """`quiet_hours.start` as {"quiet_hours": {"start": …}}; a name that is no preference's stays whole."""
    nested: dict[str, Any] = {}
    for name, words in errors.items():
        field, dot, inner = name.partition(".")
        if dot and field in DEFAULT.as_document():
            nested.setdefault(field, {})[inner] = [words]
        else:
            nested[name] = [words]
    return nested


def _address(request: Request) -> Any:
    if not isinstance(request.data, dict):
        raise ValidationError({"": ["An object is needed."]})
    # Whose a phone number or a webhook is needs proof.
    if request.data.get("channel") not in [c.value for c in PUSH_CHANNELS]:
        raise ValidationError({"channel": [f"One of {', '.join(PUSH_CHANNELS)}; services register the others."]})
    try:
        return read_address(request.data)
    except BadValueError as error:
        named = re.match(r"\w+", str(error))  # Its sentences begin with the field's name.
        raise ValidationError({named[0] if named else "": [str(error)]}) from error


def _shown(row: Endpoint) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "channel": row.channel,
        "address": mask_address(row.address),
        "platform": row.platform,
        "app": row.app,
        "environment": row.environment,
        "active": row.active,
        "deactivated_reason": row.deactivated_reason,
        "registered_at": clock.as_utc(row.registered_at).isoformat().replace("+00:00", "Z"),
    }
