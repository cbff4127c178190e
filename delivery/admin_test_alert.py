"""A test alert that staff send to a follower: by a permission of its own, never without a reason."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html

from delivery.updates import send_test_alert
from followers.admin_base import QuickModelAdmin, link, object_id
from followers.admin_endpoints import endpoint_table
from followers.admin_history import note_changes, reason_field
from followers.models import Endpoint, Follower
from notifications.models import Update

PERMISSION = "notifications.send_test_alert"


class TestAlertForm(forms.Form):
    """Why a follower is sent a test."""

    reason = reason_field("It is kept in the follower's history.")


def may_send_test_alert(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm(PERMISSION))


class TestAlertMixin(QuickModelAdmin):
    """The part of a follower's page that sends them a test."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.test_alert_view)
        return [path("<path:object_id>/test-alert/", view, name="followers_follower_test_alert"), *super().get_urls()]

    def test_alert_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks why, and sends one test to the follower's own devices and inbox."""
        if not (may_send_test_alert(request) and self.has_view_permission(request)):
            raise PermissionDenied
        follower = _follower(object_id)
        form = TestAlertForm(request.POST or None)
        back = reverse("admin:followers_follower_change", args=[follower.pk])
        if request.method == "POST" and form.is_valid():
            self._send(request, follower, form.cleaned_data["reason"].strip())
            return redirect(back)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Send a test alert",
            "follower": follower.external_id,
            "endpoints": endpoint_table(Endpoint.objects.filter(follower_id=follower.pk)),
            "back": back,
            "form": form,
        }
        return TemplateResponse(request, "admin/test_alert.html", context)

    def _send(self, request: HttpRequest, follower: Follower, reason: str) -> None:
        update = send_test_alert(follower, published_by=request.user.get_username()).update
        note_changes(request, Follower, {follower.pk: follower.external_id}, f"Sent a test alert: {reason}")
        told = link(Update, update["_id"], "what became of it")
        self.message_user(request, format_html("A test alert is on its way to {}: {}.", follower.external_id, told))


def _follower(pk: str) -> Follower:
    follower = Follower.objects.filter(pk=object_id(pk)).first()
    if follower is None:
        raise Http404
    return follower
