"""The admin's sidebar: what stands where, in the order in which support looks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import reverse_lazy

# (title, model as app_name, icon of the Material Symbols font)
ADMIN_SECTIONS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Alerts",
        (
            ("Review bucket", "delivery_reviewitem", "inbox_customize"),
            ("Alerts", "notifications_notification", "notifications"),
            ("General updates", "notifications_update", "campaign"),
            ("Inbox entries", "notifications_inappentry", "inbox"),
        ),
    ),
    (
        "Trades",
        (
            ("Trade events", "notifications_tradeevent", "candlestick_chart"),
            ("Rejected messages", "notifications_rejectedevent", "report"),
        ),
    ),
    (
        "People",
        (
            ("Traders", "followers_trader", "trending_up"),
            ("Followers", "followers_follower", "group"),
            ("Follows", "followers_follow", "link"),
            ("Endpoints", "followers_endpoint", "devices"),
        ),
    ),
    (
        "Operation",
        (
            ("Operations", "delivery_operations", "monitoring"),
            ("Circuit breakers", "delivery_breaker", "electrical_services"),
            ("Proof", "delivery_proofrun", "verified"),
            ("Batches", "delivery_batch", "package_2"),
            ("API keys", "followers_servicekey", "key"),
            ("Staff", "auth_user", "badge"),
            ("Groups", "auth_group", "shield_person"),
        ),
    ),
)


PAGES = {"delivery_operations": "operations"}
"""Pages that are no model's list, by the permission to view them; each with the name of its URL."""


def sidebar_link(title: str, model: str, icon: str) -> dict[str, Any]:
    """One line of the sidebar, shown to whoever may see the model's list."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(PAGES.get(model, f"admin:{model}_changelist")),
        "permission": _may_view(model),
    }


def _may_view(model: str) -> Callable[[HttpRequest], bool]:
    app, name = model.split("_", 1)
    return lambda request: _has_permission(request.user, f"{app}.view_{name}")


def _has_permission(user: Any, permission: str) -> bool:
    return bool(user.has_perm(permission))
