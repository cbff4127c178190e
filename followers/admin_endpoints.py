"""The admin of endpoints: an address is masked wherever it is shown."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString
from unfold.forms import ActionForm
from unfold.widgets import UnfoldAdminTextInputWidget

from followers.addresses import mask_address
from followers.admin_base import EMPTY, QuickModelAdmin, badge, link, link_to, moment, moment_column, table
from followers.admin_base import object_id as parsed_id
from followers.admin_history import REASON_MAX
from followers.admin_switch import SwitchForm, may_switch, switch, switch_button
from followers.choices import VENDOR_CHANNELS, Channel
from followers.encryption import UnknownKeyError, decrypt
from followers.models import Endpoint, Follower, Trader
from followers.statements import addresses

UNREADABLE = "unreadable: its key is missing"


def masked_addresses(endpoint_ids: list[Any]) -> dict[Any, str]:
    """The masked address of each endpoint. One whose key is gone is called unreadable; it must not fail the page."""
    masked: dict[Any, str] = {}
    for endpoint_id, stored in addresses(endpoint_ids).items():
        try:
            masked[endpoint_id] = mask_address(decrypt(stored["address"]))
        except UnknownKeyError:
            masked[endpoint_id] = UNREADABLE
    return masked


def endpoint_table(endpoints: QuerySet[Endpoint], back: str = "", may_switch: bool = False) -> SafeString:
    """The endpoints of one owner; with `may_switch` each has its switch, which leads back to `back`."""
    rows = list(endpoints.defer("address").order_by("pk")[:200])
    masked = masked_addresses([e.pk for e in rows])
    return table(
        ("Channel", "Address", "Platform", "State", "Why", "Registered", *([""] if may_switch else [])),
        (
            (
                Channel(e.channel).label,
                link(Endpoint, e.pk, masked.get(e.pk, EMPTY)),
                e.platform or EMPTY,
                activity_badge(e),
                EMPTY if e.active else f"{e.deactivated_reason or 'no reason was kept'}, {moment(e.deactivated_at)}",
                moment(e.registered_at),
                *([switch_button(switch_url(e.pk, back), e.active)] if may_switch else []),
            )
            for e in rows
        ),
    )


def switch_url(pk: object, back: str = "") -> str:
    query = {"back": back} if back else None
    return reverse("admin:followers_endpoint_switch", args=[pk], query=query)


def activity_badge(endpoint: Endpoint) -> SafeString:
    return badge("active", "green") if endpoint.active else badge("deactivated", "grey")


class EndpointForm(forms.ModelForm):
    """Adds an endpoint; its address is typed once and shown masked ever after."""

    class Meta:
        model = Endpoint
        fields = ("follower", "trader", "channel", "address", "platform", "app", "environment")
        widgets = {"address": UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"})}

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # Normalises the address and hashes it, in Endpoint.clean.
        if self.errors or self.instance.pk is not None:
            return
        taken = Endpoint.objects.filter(channel=self.instance.channel, address_hash=self.instance.address_hash)
        if taken.defer("address").exists():
            self.add_error("address", ValidationError("This address is registered already.", code="unique"))


class ReasonForm(ActionForm):
    """The list's actions, with the words that the log keeps beside them."""

    reason = forms.CharField(
        required=False,
        max_length=200,
        label="",
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "Reason", "aria-label": "Reason"}),
    )


class ActivityFilter(admin.SimpleListFilter):
    """Deactivated endpoints are few and have an index of their own; nearly all others are active."""

    title = "state"
    parameter_name = "active"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Active"), ("0", "Deactivated")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
        return queryset.filter(active=self.value() == "1") if self.value() in {"0", "1"} else queryset


class ChannelFilter(admin.SimpleListFilter):
    title = "channel"
    parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(c.value, str(c.label)) for c in VENDOR_CHANNELS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> QuerySet[Endpoint]:
        return queryset.filter(channel=self.value()) if self.value() else queryset


@admin.register(Endpoint)
class EndpointAdmin(QuickModelAdmin):
    related_in_list = ("trader", "follower")
    list_display = ("masked_address", "channel", "owner", "platform", "activity", "registered")
    list_filter = (ChannelFilter, ActivityFilter)
    ordering = ("-id",)
    search_fields = ("follower__external_id",)
    search_help_text = "External id of a follower, or of the trader of a community channel"
    deferred_in_list = ("address",)  # One that cannot be read must not fail the whole page.
    action_form = ReasonForm
    actions = ("deactivate", "activate")
    form = EndpointForm
    autocomplete_fields = ("follower", "trader")
    add_fields = EndpointForm.Meta.fields
    change_fields = (
        "channel", "masked_address", "owner", "platform", "app", "environment",
        "activity", "deactivated_reason", "deactivated", "registered", "switch_link",
    )  # fmt: skip

    def get_fields(self, request: HttpRequest, obj: Endpoint | None = None) -> tuple[str, ...]:
        if obj is None:
            return self.add_fields
        return self.change_fields if may_switch(request) else self.change_fields[:-1]

    def get_readonly_fields(self, request: HttpRequest, obj: Endpoint | None = None) -> list[str]:
        # Another address is another endpoint; activity changes through the actions, which leave a reason.
        editable = {"platform", "app", "environment"}
        return [name for name in self.change_fields if name not in editable] if obj else []

    def get_form(self, request: HttpRequest, obj: Endpoint | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            kwargs["form"] = forms.ModelForm  # Its address stays out of the form altogether.
        return super().get_form(request, obj, change, **kwargs)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        return self._refusal(request, object_id) or super().changeform_view(request, object_id, *args, **kwargs)

    def delete_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._refusal(request, object_id) or super().delete_view(request, object_id, *args, **kwargs)

    def _refusal(self, request: HttpRequest, text: str | None) -> HttpResponse | None:
        """An endpoint whose address cannot be decrypted has no page; Django would only say that it does not exist."""
        pk = parsed_id(text or "")
        if pk is None or masked_addresses([pk]).get(pk) != UNREADABLE:
            return None
        reason = "This endpoint was encrypted under a key that ENDPOINT_ENCRYPTION_KEYS does not hold."
        self.message_user(request, reason, messages.ERROR)
        return redirect("admin:followers_endpoint_changelist")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        masked = masked_addresses([e.pk for e in changelist.result_list])
        for endpoint in changelist.result_list:
            endpoint.masked = masked.get(endpoint.pk, "–")
        return changelist

    def found_by(self, term: str) -> Q:
        follower = Follower.objects.filter(external_id=term).values_list("pk", flat=True).first()
        if follower is not None:
            return Q(follower_id=follower)
        trader = Trader.objects.filter(external_id=term).values_list("pk", flat=True).first()
        if trader is not None:
            return Q(trader_id=trader)
        return Q(pk=found) if (found := parsed_id(term)) else Q(pk__in=[])

    # --- Switching ----------------------------------------------------------------------------------------------------
    def has_switch_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return may_switch(request)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.switch_view)
        return [path("<path:object_id>/switch/", view, name="followers_endpoint_switch"), *super().get_urls()]

    def switch_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Asks why, and deactivates an active endpoint or reactivates a deactivated one.

        The page says which it asked for: the endpoint may have changed while somebody wrote down why.
        """
        if not self.has_switch_permission(request):
            raise PermissionDenied
        endpoint = Endpoint.objects.filter(pk=parsed_id(object_id)).defer("address").first()
        if endpoint is None:
            raise Http404
        form = SwitchForm(request.POST or None)
        back = self._way_back(request, endpoint)
        name = f"{Channel(endpoint.channel).label} {masked_addresses([endpoint.pk]).get(endpoint.pk, EMPTY)}"
        wanted = request.POST.get("wanted") or ("inactive" if endpoint.active else "active")
        active = wanted == "active"
        if request.method == "POST" and form.is_valid():
            changed = switch(request, {endpoint.pk: name}, active, form.cleaned_data["reason"].strip())
            done = "Reactivated" if active else "Deactivated"
            self.message_user(request, f"{done} {name}." if changed else f"{name} stands so already.")
            return redirect(back)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Reactivate" if active else "Deactivate",
            "summary": name,
            "wanted": wanted,
            "back": back,
            "form": form,
        }
        return TemplateResponse(request, "admin/endpoint_switch.html", context)

    def _way_back(self, request: HttpRequest, endpoint: Endpoint) -> str:
        asked = request.POST.get("back") or request.GET.get("back", "")
        if url_has_allowed_host_and_scheme(asked, allowed_hosts=None):
            return asked
        return reverse("admin:followers_endpoint_change", args=[endpoint.pk])

    @admin.action(description="Deactivate, with a reason", permissions=["switch"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._switch_chosen(request, queryset, active=False)

    @admin.action(description="Activate, with a reason", permissions=["switch"])
    def activate(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        self._switch_chosen(request, queryset, active=True)

    def _switch_chosen(self, request: HttpRequest, queryset: QuerySet[Endpoint], active: bool) -> None:
        reason = request.POST.get("reason", "").strip()[:REASON_MAX]
        if not reason:
            self.message_user(request, "Say why: the reason is kept in the endpoint's history.", messages.ERROR)
            return
        ids = list(queryset.order_by().values_list("pk", flat=True))
        masked = masked_addresses(ids)
        changed = switch(request, {pk: masked.get(pk, str(pk)) for pk in ids}, active, reason)
        done = "Activated" if active else "Deactivated"
        self.message_user(request, f"{done} {changed:,} of the chosen endpoints.", messages.SUCCESS)

    @admin.display(description="Address")
    def masked_address(self, endpoint: Any) -> str:
        return getattr(endpoint, "masked", None) or mask_address(endpoint.address)

    @admin.display(description="Owner")
    def owner(self, endpoint: Any) -> SafeString:
        return link_to(endpoint, "trader" if endpoint.follower_id is None else "follower")

    @admin.display(description="State")
    def activity(self, endpoint: Endpoint) -> SafeString:
        return activity_badge(endpoint)

    deactivated = moment_column("deactivated_at", "Deactivated")
    registered = moment_column("registered_at", "Registered")

    @admin.display(description="Switch")
    def switch_link(self, endpoint: Endpoint) -> SafeString:
        return switch_button(switch_url(endpoint.pk), endpoint.active)
