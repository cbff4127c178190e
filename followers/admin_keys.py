"""The admin of services' API keys: made here and shown once, revoked, never deleted."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from followers import clock, service_keys
from followers.admin_base import QuickModelAdmin, moment_column
from followers.admin_endpoints import ReasonForm
from followers.admin_history import note_changes
from followers.choices import Scope
from followers.models import ServiceKey


class ServiceKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = ServiceKey
        fields = ("name", "scopes", "expires_at")


@admin.register(ServiceKey)
class ServiceKeyAdmin(QuickModelAdmin):
    form = ServiceKeyForm
    fields = ("name", "scopes", "expires_at", "made", "used", "revoked")
    readonly_fields = ("made", "used", "revoked")
    list_display = ("name", "prefix", "made", "used", "expires_at", "revoked")
    ordering = ("-pk",)
    action_form = ReasonForm
    actions = ("revoke",)

    made = moment_column("created_at", "Made")
    used = moment_column("last_used_at", "Last used")
    revoked = moment_column("revoked_at", "Revoked")

    def has_delete_permission(self, request: HttpRequest, obj: ServiceKey | None = None) -> bool:
        return False  # A revoked key still says who called, and answers `key_revoked`.

    def save_model(self, request: HttpRequest, obj: ServiceKey, form: forms.ModelForm[Any], change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        text = service_keys.issue(obj)
        self.message_user(request, format_html("The key, shown this once: <code>{}</code>", text), messages.WARNING)

    @admin.action(description="Revoke", permissions=["change"])
    def revoke(self, request: HttpRequest, keys: QuerySet[ServiceKey]) -> None:
        names = {key.pk: str(key) for key in keys.filter(revoked_at=None)}
        count = service_keys.revoke(list(names), clock.now())
        why = request.POST.get("reason", "").strip()
        note_changes(request, ServiceKey, names, f"Revoked: {why}" if why else "Revoked.")
        self.message_user(request, f"{count} revoked.")
