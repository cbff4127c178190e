"""The admin of traders, followers and who follows whom."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model, Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

import followers.admin_keys
import followers.admin_staff  # noqa: F401  # Registers its pages; Django looks for them in this module only.
from followers import clock
from followers.admin_base import (
    QuickModelAdmin,
    badge,
    fetch_related,
    link,
    link_to,
    list_link,
    moment,
    moment_column,
    once_per_page,
    plain,
    starts_with,
    table,
)
from followers.admin_endpoints import endpoint_table
from followers.admin_switch import may_switch
from followers.models import Endpoint, Follow, Follower, Trader
from followers.preferences import read
from followers.preferences_words import in_words


class PersonAdmin(QuickModelAdmin):
    """What traders and followers have in common."""

    ordering = ("external_id",)
    search_fields = ("external_id",)
    search_help_text = "External id, or its beginning"

    def found_by(self, term: str) -> Q:
        return starts_with("external_id", term)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        # Other systems know a person by the external id: it is given once.
        return [*super().get_readonly_fields(request, obj), *(["external_id"] if obj else [])]

    def save_model(self, request: HttpRequest, obj: Any, form: forms.ModelForm[Any], change: bool) -> None:
        if "portfolio_value" in form.changed_data:
            obj.portfolio_as_of = clock.now()
        super().save_model(request, obj, form, change)

    @admin.display(description="Portfolio")
    def portfolio(self, person: Any) -> str:
        return f"{plain(person.portfolio_value)} {person.currency}".strip()

    as_of = moment_column("portfolio_as_of", "Portfolio as of")


@admin.register(Trader)
class TraderAdmin(PersonAdmin):
    list_display = ("external_id", "name", "portfolio", "as_of")
    fields = ("external_id", "name", "portfolio_value", "currency", "as_of", "follows", "community_channels")
    readonly_fields = ("as_of", "follows", "community_channels")

    def has_delete_permission(self, request: HttpRequest, obj: Trader | None = None) -> bool:
        return False  # It would take the follows of perhaps fifty thousand people along.

    @admin.display(description="Followers")
    @once_per_page
    def follows(self, trader: Trader) -> SafeString | str:
        return list_link(Follow, "Show the followers", trader__id__exact=trader.pk) if trader.pk else "–"

    @admin.display(description="Community channels")
    def community_channels(self, trader: Trader) -> SafeString | str:
        return endpoint_table(Endpoint.objects.filter(trader_id=trader.pk)) if trader.pk else "–"


FOLLOWS_SHOWN = 100


class FollowerAdmin(PersonAdmin):
    """The page of a follower. delivery.admin_follower registers it, with what became of their alerts."""

    list_display = ("external_id", "name", "portfolio", "as_of", "locale", "timezone")
    fieldsets: Any = (
        (None, {"fields": ("external_id", "name", "portfolio_value", "currency", "as_of", "locale", "timezone")}),
        ("Addresses", {"fields": ("endpoints",)}),
        ("Follows", {"fields": ("follows",)}),
        ("Wishes", {"fields": ("wishes", "preferences")}),
    )
    readonly_fields: Any = ("as_of", "portfolio", "endpoints", "follows", "wishes")
    to_read: Any = (None, {"fields": (("external_id", "name", "portfolio"), ("as_of", "locale", "timezone"))})

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        first, *others = super().get_fieldsets(request, obj)
        if obj is None:
            return [first]
        return [first if self.has_change_permission(request, obj) else self.to_read, *others]

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        follower: Any = super().get_object(request, *args, **kwargs)
        if follower is not None:
            follower.may_be_switched = may_switch(request)
        return follower

    @admin.display(description="Where they are reached")
    @once_per_page
    def endpoints(self, follower: Any) -> SafeString | str:
        back = reverse("admin:followers_follower_change", args=[follower.pk])
        return endpoint_table(Endpoint.objects.filter(follower_id=follower.pk), back, follower.may_be_switched)

    @admin.display(description="Whom they follow")
    @once_per_page
    def follows(self, follower: Follower) -> SafeString | str:
        """Index: followers_follow (follower_id)."""
        rows = list(Follow.objects.filter(follower_id=follower.pk)[:FOLLOWS_SHOWN])
        fetch_related(rows, "trader")
        shown = table(
            ("Trader", "State", "Since", "Ended", "Multiplier", "Allocation", "Most per order", ""),
            (_follow_cells(row) for row in rows),
        )
        every = list_link(Follow, "Show them as a list", q=follower.external_id)
        return format_html('<div class="flex flex-col gap-2 w-full">{}<span>{}</span></div>', shown, every)

    @admin.display(description="In words")
    def wishes(self, follower: Follower) -> SafeString:
        return format_html_join("", "<p>{}</p>", ((words,) for words in in_words(read(follower.preferences))))


def _follow_cells(follow: Follow) -> tuple[object, ...]:
    has_ended = follow.ended_at is not None and follow.ended_at <= clock.now()
    return (
        link_to(follow, "trader"),
        badge("ended", "grey") if has_ended else badge("follows", "green"),
        moment(follow.since),
        moment(follow.ended_at),
        plain(follow.multiplier),
        plain(follow.allocation) if follow.allocation is not None else "whole portfolio",
        plain(follow.max_notional) if follow.max_notional is not None else "no limit",
        link(Follow, follow.pk, "Open"),
    )


# --- Follows ---------------------------------------------------------------------------------------------------------
@admin.register(Follow)
class FollowAdmin(QuickModelAdmin):
    list_display = ("number", "trader_link", "follower_link", "multiplier_", "allocation_", "since", "ended_at")
    related_in_list = ("trader", "follower")
    ordering = ("trader_id", "follower_id")  # The unique index, which also serves a list of one trader.
    search_fields = ("follower__external_id",)
    search_help_text = "External id of a follower or of a trader"
    autocomplete_fields = ("trader", "follower")
    fields = ("trader", "follower", "multiplier", "allocation", "max_notional", "since", "ended_at")

    def found_by(self, term: str) -> Q:
        follower = Follower.objects.filter(external_id=term).values_list("pk", flat=True).first()
        if follower is not None:
            return Q(follower_id=follower)
        trader = Trader.objects.filter(external_id=term).values_list("pk", flat=True).first()
        return Q(trader_id=trader) if trader is not None else Q(pk__in=[])

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [*super().get_readonly_fields(request, obj), *(["trader", "follower"] if obj else [])]

    @admin.display(description="Follow")
    def number(self, follow: Follow) -> str:
        return f"…{str(follow.pk)[-8:]}"

    @admin.display(description="Trader")
    def trader_link(self, follow: Follow) -> SafeString:
        return link_to(follow, "trader")

    @admin.display(description="Follower")
    def follower_link(self, follow: Follow) -> SafeString:
        return link_to(follow, "follower")

    @admin.display(description="Multiplier")
    def multiplier_(self, follow: Follow) -> str:
        return plain(follow.multiplier)

    @admin.display(description="Allocation")
    def allocation_(self, follow: Follow) -> str:
        return plain(follow.allocation) if follow.allocation is not None else "whole portfolio"
