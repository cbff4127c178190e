"""The Content-Security-Policy of each kind of page: what a browser may load and run there.

Strict for whatever is ours: nothing inline, nothing from elsewhere. Two kinds of pages come from libraries that need
more, and get only that; tests/web/test_content_security_policy.py asks a browser whether it refuses any page anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.middleware import CSPMiddleware, PolicyParts
from django.http import HttpRequest
from django.http.response import HttpResponseBase

Directives = Mapping[str, Sequence[str]]

OWN_PAGES: Final[Directives] = {
    "default-src": [NONE],
    "script-src": [SELF],
    "style-src": [SELF],
    "img-src": [SELF, "data:"],
    "font-src": [SELF],
    "connect-src": [SELF],  # Its own WebSocket as well.
    "form-action": [SELF],
    "frame-ancestors": [NONE],
    "base-uri": [NONE],
}

ADMIN: Final[Directives] = {
    # Alpine, with which unfold's pages work, makes functions of the texts in their attributes.
    "script-src": [SELF, UNSAFE_EVAL],
    # unfold and htmx write style attributes and style elements.
    "style-src": [SELF, UNSAFE_INLINE],
}

API_DOCS: Final[Directives] = {
    # Swagger UI writes styles.
    "style-src": [SELF, UNSAFE_INLINE],
}


class ContentSecurityPolicy(CSPMiddleware):
    """django-csp's middleware, which chooses the policy by where the page lives."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if not report_only and parts.replace is None:
            parts.replace = _more_for(request)
        return parts


def _more_for(request: HttpRequest) -> dict[str, Any] | None:
    if request.path_info.startswith("/admin/"):
        return dict(ADMIN)
    if request.path_info.startswith("/api/docs"):
        return dict(API_DOCS)
    return None
