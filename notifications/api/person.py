"""A follower's calls about themselves: preferences and devices."""

from __future__ import annotations

import re
from typing import Any

from bson import ObjectId
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
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
    PreferencesSerializer,
)
from followers.api.schema import BODY, NO_BODY, POSTED, problems
from followers.choices import PUSH_CHANNELS
from followers.members import BadValueError, read_address
from followers.models import Endpoint, Follower
from followers.preferences import PreferencesError
from notifications.api.views import FollowerView

QUIET = {"quiet_hours": {"start": "22:00", "end": "07:00"}, "channels": {"sms": "critical_only"}}
DEVICE = {"channel": "fcm", "address": "dGVzdC10b2tlbg:APA91b…", "platform": "android", "app": "com.example.copytrade"}


class PreferencesView(FollowerView):
    @extend_schema(
        operation_id="preferences",
        tags=["Follower"],
        summary="What I want to be told, where and when",
        responses={200: PreferencesSerializer, **problems(404)},
    )
    def get(self, request: Request) -> Response:
        wanted = profile.preferences_of(request.user.follower_id)
        if wanted is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(wanted.as_document())

    @extend_schema(
        operation_id="preferences_change",
        tags=["Follower"],
        summary="Changes some of it; null brings a field back to its default",
        request=PreferencesSerializer(partial=True),
        responses={200: PreferencesSerializer, **problems(404, 409, *BODY)},
        examples=[OpenApiExample("Quiet nights", QUIET, request_only=True)],
    )
    def patch(self, request: Request) -> Response:
        try:
            wanted = profile.change_preferences(request.user.follower_id, request.data)
        except PreferencesError as error:
            raise ValidationError({name or "preferences": [words] for name, words in error.errors.items()}) from error
        except profile.ChangedMeanwhileError as error:
            raise ProblemError(ErrorCode.REQUEST_IN_PROGRESS, headers={"Retry-After": "1"}) from error
        if wanted is None:
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(wanted.as_document())


class DevicesView(FollowerView):
    @extend_schema(
        operation_id="devices",
        tags=["Follower"],
        summary="My devices and addresses, the newest first",
        responses={200: DevicesSerializer, **problems()},
    )
    def get(self, request: Request) -> Response:
        return Response({"results": [_shown(row) for row in profile.devices(request.user.follower_id)]})

    @extend_schema(
        operation_id="devices_register",
        tags=["Follower"],
        summary="Registers a device, again after every change of its token; it leaves whoever had it before",
        request=DeviceToRegister,
        responses={200: DeviceSerializer, 201: DeviceSerializer, **problems(404, *POSTED)},
        examples=[OpenApiExample("An Android phone", DEVICE, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        address = _address(request)
        me = request.user.follower_id
        if not Follower.objects.filter(pk=me).exists():
            raise ProblemError(ErrorCode.NOT_FOUND)
        (row,) = upserts.write_endpoints([(address, {"follower_id": me})])
        status = 201 if row.outcome is upserts.Outcome.CREATED else 200
        return Response(_shown(Endpoint.objects.get(pk=row.id)), status)

    @extend_schema(
        operation_id="devices_remove_address",
        tags=["Follower"],
        summary="Signs a device off by its token, as at a log-out",
        request=DeviceToRemove,
        responses={204: NO_BODY, **problems(404, *BODY)},
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
        summary="Signs a device off; registering it again brings it back",
        responses={204: OpenApiResponse(description="Done."), **problems(404)},
    )
    def delete(self, request: Request, device_id: str) -> Response:
        if not profile.sign_off(request.user.follower_id, clock.now(), ObjectId(device_id)):
            raise ProblemError(ErrorCode.NOT_FOUND)
        return Response(status=204)


def _address(request: Request) -> Any:
    if not isinstance(request.data, dict):
        raise ValidationError({"": ["An object is needed."]})
    # Whose a phone number or a webhook is needs proof.
    if request.data.get("channel") not in {c.value for c in PUSH_CHANNELS}:
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
