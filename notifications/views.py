"""The demo: any follower's inbox, live, for whoever opens the page. Only while settings.DEMO_INBOX is on."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from followers import clock
from followers.models import Follow, Follower, Trader
from notifications import inbox, tokens

FOLLOWERS_SHOWN = 24


@require_GET
@never_cache
def demo_followers(request: HttpRequest) -> HttpResponse:
    """A few followers, each with a link to their inbox."""
    _only_for_the_demo()
    followers = list(Follower.objects.order_by("pk")[:FOLLOWERS_SHOWN])
    counts = inbox.unread_counts([f.pk for f in followers], clock.now())
    return render(
        request,
        "demo_followers.html",
        {"rows": [{"follower": follower, "unread": counts[follower.pk]} for follower in followers]},
    )


@require_GET
@never_cache
def demo_inbox(request: HttpRequest, external_id: str) -> HttpResponse:
    """One follower's inbox, as any app's page would show it."""
    follower = _follower(external_id)
    return render(request, "inbox_demo.html", {"follower": follower, "traders": _traders_of(follower)})


@require_GET
@never_cache
def demo_token(request: HttpRequest, external_id: str) -> JsonResponse:
    """A fresh token: what an app's own back end gives its page, for whoever is logged in there."""
    return JsonResponse({"token": tokens.mint(_follower(external_id))})


def _only_for_the_demo() -> None:
    if not settings.DEMO_INBOX:
        raise Http404("The demo is off.")


def _follower(external_id: str) -> Follower:
    _only_for_the_demo()
    return get_object_or_404(Follower, external_id=external_id)


def _traders_of(follower: Follower) -> list[Trader]:
    follows = Follow.objects.filter(follower_id=follower.pk, ended_at=None).values_list("trader_id", flat=True)
    return list(Trader.objects.filter(pk__in=list(follows[:5])).order_by("external_id"))
