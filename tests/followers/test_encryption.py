"""Addresses at rest: unreadable without a key, rotatable, and found by a keyed hash."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from followers.encryption import UnknownKeyError, address_hash, decrypt, encrypt
from followers.models import Endpoint, Follower
from followers.mongo import collection

OLD, NEW = b"\x01" * 32, b"\x02" * 32
ADDRESS = "+14155550100"


def test_what_was_encrypted_is_read_again() -> None:
    assert decrypt(encrypt(ADDRESS)) == ADDRESS
    assert decrypt(encrypt("…ünïcode…")) == "…ünïcode…"


def test_equal_addresses_look_different() -> None:
    assert encrypt(ADDRESS) != encrypt(ADDRESS)
    assert ADDRESS not in encrypt(ADDRESS)


def test_the_first_key_encrypts_and_all_of_them_decrypt(settings: Any) -> None:
    settings.ENDPOINT_ENCRYPTION_KEYS = [OLD]
    before = encrypt(ADDRESS)
    settings.ENDPOINT_ENCRYPTION_KEYS = [NEW, OLD]
    after = encrypt(ADDRESS)
    assert decrypt(before) == decrypt(after) == ADDRESS
    settings.ENDPOINT_ENCRYPTION_KEYS = [NEW]
    assert decrypt(after) == ADDRESS
    with pytest.raises(UnknownKeyError, match="does not hold"):
        decrypt(before)


def test_a_value_that_was_changed_is_refused() -> None:
    version, key, sealed = encrypt(ADDRESS).split(".")
    raw = bytearray(base64.b64decode(sealed))
    raw[20] ^= 1
    with pytest.raises(UnknownKeyError, match="changed or cut off"):
        decrypt(f"{version}.{key}.{base64.b64encode(raw).decode()}")


def test_a_value_of_another_version_is_refused() -> None:
    with pytest.raises(UnknownKeyError):
        decrypt("2" + encrypt(ADDRESS)[1:])


def test_the_hash_is_stable_and_keyed(settings: Any) -> None:
    settings.ENDPOINT_HASH_KEY = OLD
    first = address_hash(ADDRESS)
    assert first == address_hash(ADDRESS) != address_hash("+14155550101")
    assert len(first) == 64
    settings.ENDPOINT_HASH_KEY = NEW
    assert address_hash(ADDRESS) != first


@pytest.mark.django_db(transaction=True)
def test_the_field_is_plain_in_python_and_encrypted_in_the_database() -> None:
    follower = Follower.objects.create(external_id="F-1")
    endpoint = Endpoint.objects.create(follower=follower, channel="sms", address=ADDRESS)
    stored = collection(Endpoint).find_one({"_id": endpoint.pk})
    assert stored is not None
    assert ADDRESS not in str(stored)
    assert decrypt(stored["address"]) == Endpoint.objects.get().address == ADDRESS
    assert Endpoint.objects.get(address_hash=address_hash(ADDRESS)).pk == endpoint.pk


@pytest.mark.django_db(transaction=True)
def test_the_field_cannot_be_searched() -> None:
    with pytest.raises(TypeError, match="look up its hash"):
        Endpoint.objects.filter(address=ADDRESS).first()
