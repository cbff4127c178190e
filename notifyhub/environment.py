"""Reads typed settings from the environment; a wrong or missing one is a single line that names it."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured


def _has_usable_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _is_this_machine(parts: SplitResult) -> bool:
    try:
        return parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


class Environment:
    """The process environment, then `.env` in the project's root, then the default.

    Every reader raises ImproperlyConfigured with one sentence that names the setting.
    """

    def __init__(self, dotenv: Path) -> None:
        self._env = environ.Env()
        if dotenv.is_file():
            environ.Env.read_env(dotenv)  # Never overwrites what the process environment already says.

    def text(self, name: str, default: str | None = None) -> str:
        """A string; without a default it is required and must not be empty."""
        value = str(self._env.str(name, default="" if default is None else default)).strip()
        if not value and default is None:
            raise ImproperlyConfigured(f"{name} is required: set it in the environment or in .env (see .env.example).")
        return value

    def texts(self, name: str, default: str = "") -> list[str]:
        """A comma-separated list."""
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def one_of(self, name: str, default: str, allowed: set[str]) -> str:
        """One of a few words, in capitals however it is written."""
        value = self.text(name, default).upper()
        if value not in allowed:
            raise ImproperlyConfigured(f"{name} must be one of {', '.join(sorted(allowed))}, not {value!r}.")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.text(name, str(default)).lower()
        if value in {"1", "true", "yes", "on"}:
            return True
        if value in {"0", "false", "no", "off", ""}:
            return False
        raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")

    def flag_needing(self, name: str, module: str, install: str) -> bool:
        """A flag that may be on only where a module is; `install` is the command that brings it."""
        is_on = self.flag(name)
        try:
            is_there = not is_on or find_spec(module) is not None
        except ModuleNotFoundError:  # Not even the package that holds it.
            is_there = False
        if not is_there:
            raise ImproperlyConfigured(f"{name} needs packages that are not installed: {install}")
        return is_on

    def integer(self, name: str, default: int, minimum: int = 0) -> int:
        return self._number(name, default, minimum, int, "a whole number")

    def number(self, name: str, default: float, minimum: float = 0.0) -> float:
        return self._number(name, default, minimum, float, "a number")

    def _number(self, name: str, default: Any, minimum: Any, convert: Callable[[str], Any], what: str) -> Any:
        text = self.text(name, str(default))
        try:
            value = convert(text)
        except ValueError:
            raise ImproperlyConfigured(f"{name} must be {what}, not {text!r}.") from None
        if not math.isfinite(value) or value < minimum:
            raise ImproperlyConfigured(f"{name} must be at least {minimum}, not {text!r}.")
        return value

    def numbers_by_name(self, name: str) -> dict[str, int]:
        """NAME:number pairs, comma-separated, such as XNSE:900,XNAS:600."""
        pairs: dict[str, int] = {}
        for part in self.texts(name):
            key, colon, number = part.partition(":")
            if not colon or not number.strip().isdigit():
                raise ImproperlyConfigured(f"{name} must be a list such as XNSE:900,XNAS:600; {part!r} does not fit.")
            pairs[key.strip()] = int(number)
        return pairs

    def hours(self, name: str) -> tuple[str, str] | None:
        """A span such as 08:00-21:00; None if it is empty."""
        value = self.text(name, "")
        if not value:
            return None
        match = re.fullmatch(r"((?:[01]\d|2[0-3]):[0-5]\d)-((?:[01]\d|2[0-3]):[0-5]\d)", value)
        if match is None or match[1] == match[2]:
            raise ImproperlyConfigured(f"{name} must be a span of the day such as 08:00-21:00, not {value!r}.")
        return match[1], match[2]

    def origin(self, name: str, default: str) -> str:
        """A base URL without a path, such as https://api.twilio.com; empty stays empty."""
        value = self.text(name, default).rstrip("/")
        if not value:
            return ""
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
            raise ImproperlyConfigured(f"{name} must be an origin such as https://host:port, not {value!r}.")
        return value

    def public_origin(self, name: str) -> str:
        """Where the world reaches us: an https origin, or http on this machine alone; empty stays empty."""
        value = self.origin(name, "")
        parts = urlsplit(value)
        if parts.scheme == "http" and not _is_this_machine(parts):
            raise ImproperlyConfigured(f"{name} must begin with https://, not {value!r}.")
        if "@" in parts.netloc or not _has_usable_port(parts):
            raise ImproperlyConfigured(f"{name} must be an origin such as https://alerts.example.com.")
        return value

    def secure_url(self, name: str, is_plain_allowed: bool) -> str:
        """An https address, or http on this machine alone, or anywhere if that is allowed; empty stays empty."""
        value = self.url(name, {"http", "https"}, default="")
        parts = urlsplit(value)
        if value and (not parts.hostname or "@" in parts.netloc or not _has_usable_port(parts)):
            raise ImproperlyConfigured(f"{name} must be an address such as https://login.example.com/jwks.json.")
        if parts.scheme == "http" and not is_plain_allowed and not _is_this_machine(parts):
            raise ImproperlyConfigured(f"{name} must begin with https://, not {value!r}.")
        return value

    def url(self, name: str, schemes: set[str], default: str | None = None) -> str:
        value = self.text(name, default)
        scheme = urlsplit(value).scheme
        if value and scheme not in schemes:
            allowed = " or ".join(f"{s}://" for s in sorted(schemes))
            raise ImproperlyConfigured(f"{name} must begin with {allowed}, not {scheme or 'nothing'!r}.")
        return value

    def key_bytes(self, name: str, value: str) -> bytes:
        """Decodes one url-safe base64 key of 32 bytes that was read from `name`."""
        try:
            key = base64.urlsafe_b64decode(value.encode())
        except (binascii.Error, ValueError):
            raise ImproperlyConfigured(f"{name} must be url-safe base64.") from None
        if len(key) != 32:
            raise ImproperlyConfigured(f"{name} must hold 32 bytes as url-safe base64; this one holds {len(key)}.")
        return key
