"""The admin's history of what staff set going by an action: who, when, on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextInputWidget

REASON_MAX = 200


def reason_field(kept: str) -> forms.CharField:
    """Asks why something is done; `kept` tells whoever is asked where their answer is kept, as a sentence."""
    widget = UnfoldAdminTextInputWidget(attrs={"autofocus": True, "autocomplete": "off"})
    return forms.CharField(max_length=REASON_MAX, help_text=kept, widget=widget)


def note_changes(request: HttpRequest, model: type[Model], changed: Mapping[Any, str], message: str) -> None:
    """One entry for each object, in bulk.

    Parameters:
      changed: The objects' ids, each with what it is called in the history.
      message: What was done, as a sentence.
    """
    content_type = ContentType.objects.get_for_model(model)
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=request.user.pk,
            content_type=content_type,
            object_id=str(pk),
            object_repr=name[:200],
            action_flag=CHANGE,
            change_message=message,
        )
        for pk, name in changed.items()
    )
