"""The keys of services that call the API: made once, shown once, kept as a hash.

The text is `nh_<prefix>_<secret>`. The secret is 256 random bits, so a plain SHA-256 keeps it: there is nothing to
guess that a slow hash would protect, and a slow one would cost every call.

Of our own making, as djangorestframework-api-key (3.1) has no scopes, no stamp of the last use and no time of
revocation, names its rows by the key's hash, and looks a key up by a unique index that this database does not use.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

from bson import ObjectId
from django.db.models import Q

from followers import clock
from followers.models import ServiceKey

STAMP_EVERY = timedelta(minutes=1)
_FORM = re.compile(r"nh_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


def create(name: str, scopes: Collection[str], expires_at: datetime | None = None) -> tuple[ServiceKey, str]:
    """A new key and its text, which nobody can show again."""
    key = ServiceKey(name=name, scopes=list(scopes), expires_at=expires_at)
    return key, issue(key)


def issue(key: ServiceKey) -> str:
    """Stores a key that is new, and returns its text."""
    key.prefix = secrets.token_hex(8)
    text = f"nh_{key.prefix}_{secrets.token_urlsafe(32)}"
    key.key_hash = _hash(text)
    key.created_at = clock.now()
    key.save(force_insert=True)
    return text


def revoke(ids: Collection[ObjectId], now: datetime) -> int:
    """good → revoked; what was revoked before keeps its time. Returns how many changed."""
    return ServiceKey.objects.filter(pk__in=list(ids), revoked_at=None).update(revoked_at=now)


def find(text: str) -> ServiceKey | None:
    """The key of this text, revoked and expired ones too. Index: followers_servicekey (prefix)."""
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    key = ServiceKey.objects.filter(prefix=form[1]).first()
    return key if key is not None and hmac.compare_digest(key.key_hash, _hash(text)) else None


def stamp(key: ServiceKey, now: datetime) -> None:
    """Writes down that the key is in use, at most once a minute."""
    stale = Q(last_used_at=None) | Q(last_used_at__lte=now - STAMP_EVERY)
    if key.last_used_at is None or clock.as_utc(key.last_used_at) <= now - STAMP_EVERY:
        ServiceKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
