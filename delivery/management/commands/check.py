"""manage.py check: Django's own, which also says which channels are off."""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.management.commands.check import Command as DjangoCheck
from django.urls import get_resolver

from delivery.checks import report_channels


class Command(DjangoCheck):
    def handle(self, *args: Any, **options: Any) -> None:
        get_resolver().url_patterns  # noqa: B018  Loads the admin, so that its own checks see what is registered.
        checks.register(report_channels)
        super().handle(*args, **options)
