"""Endpoint addresses at rest: AES-256-GCM, several keys for rotation, and a keyed hash to find a row by its address.

A stored value is `1.<key id>.<base64 of nonce + ciphertext + tag>`. AES-GCM takes a few microseconds an address where
Fernet takes several times as many, which counts when thousands of alerts a second need theirs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from functools import cache, lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import models

NONCE_BYTES = 12  # What NIST SP 800-38D recommends for GCM.
VERSION = "1"


class UnknownKeyError(ValueError):
    """The value was encrypted under a key that ENDPOINT_ENCRYPTION_KEYS no longer holds."""


def encrypt(address: str) -> str:
    """Encrypts under the first of ENDPOINT_ENCRYPTION_KEYS."""
    key = settings.ENDPOINT_ENCRYPTION_KEYS[0]
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + _cipher(key).encrypt(nonce, address.encode(), None)
    return f"{VERSION}.{key_id(key)}.{base64.b64encode(sealed).decode()}"


def decrypt(stored: str) -> str:
    """Decrypts with whichever key encrypted.

    Raises UnknownKeyError where no configured key fits, or the value was tampered with.
    """
    version, wanted, sealed = stored.split(".", 2)
    cipher = _ciphers(tuple(settings.ENDPOINT_ENCRYPTION_KEYS)).get(wanted)
    if version != VERSION or cipher is None:
        raise UnknownKeyError("The address was encrypted under a key that ENDPOINT_ENCRYPTION_KEYS does not hold.")
    raw = base64.b64decode(sealed)
    try:
        return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], None).decode()
    except InvalidTag as error:
        raise UnknownKeyError("The stored address does not fit its key; it was changed or cut off.") from error


def address_hash(address: str) -> str:
    """HMAC-SHA256 under ENDPOINT_HASH_KEY, hexadecimal: equal addresses have equal hashes, and no more is learnt."""
    return hmac.new(settings.ENDPOINT_HASH_KEY, address.encode(), hashlib.sha256).hexdigest()


@lru_cache(maxsize=4)
def _ciphers(keys: tuple[bytes, ...]) -> dict[str, AESGCM]:
    """The ciphers by the id of their key."""
    return {key_id(key): _cipher(key) for key in keys}


@cache
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


@cache
def key_id(key: bytes) -> str:
    """Names a key without telling anything about it."""
    return hashlib.sha256(b"key id" + key).hexdigest()[:8]


def key_of(stored: str) -> str:
    """The id of the key that a stored value was encrypted under; empty where it has no such form."""
    return stored.split(".", 2)[1] if stored.count(".") >= 2 else ""


class EncryptedTextField(models.TextField):
    """Text that is encrypted in the database and plain in Python. It cannot be searched; keep a hash beside it."""

    def get_prep_value(self, value: Any) -> Any:
        return None if value is None else encrypt(str(value))

    def from_db_value(self, value: Any, expression: object, connection: object) -> Any:
        return None if value is None else decrypt(value)

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name != "isnull":
            raise TypeError(f"{self.name} is encrypted and cannot be searched; look up its hash instead.")
        return super().get_lookup(lookup_name)
