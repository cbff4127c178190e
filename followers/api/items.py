"""The items of the bulk calls: read one by one, written together, answered one by one.

A bad item gets its reason and spoils no other. Where several items of a call name the same thing, the last value of
each field counts, and each of them is answered alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson import ObjectId

from followers import upserts
from followers.choices import Channel
from followers.members import (
    Address,
    BadValueError,
    read_address,
    read_id,
    read_locale,
    read_number,
    read_required_number,
    read_text,
    read_time,
    read_timezone,
)
from followers.models import Follower, Trader
from followers.upserts import Row, merged

Document = dict[str, Any]
ONE = Decimal(1)

_UNKNOWN = {"trader_id": "unknown_trader", "follower_id": "unknown_follower"}


class UnknownPersonError(Exception):
    """The item names somebody who is not stored."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field}: nobody of that id is stored.")
        self.code = _UNKNOWN[field]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one item."""

    index: int
    external_id: str | None
    status: str  # created, updated, unchanged, error
    id: ObjectId | None = None
    code: str | None = None
    detail: str | None = None

    def shown(self) -> Document:
        return {
            "index": self.index,
            "external_id": self.external_id,
            "id": str(self.id) if self.id else None,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }


Write = Callable[[list[Any]], Sequence[Row | UnknownPersonError]]
"""Writes what good items say; a row each, in their order, or why not."""


def carry_out(items: list[Any], read: Callable[[Document], Any], write: Write, name: str) -> list[Document]:
    """The answers to `items`, in their order. `name` is the field whose value an answer repeats as `external_id`."""
    answers: dict[int, Answer] = {}
    good: list[tuple[int, Any]] = []
    for index, item in enumerate(items):
        try:
            if not isinstance(item, dict):
                raise BadValueError("An item is an object.")
            good.append((index, read(item)))
        except BadValueError as error:
            answers[index] = Answer(index, _name(item, name), "error", code="invalid", detail=str(error))
    written = write([wanted for _, wanted in good]) if good else []
    for (index, _), row in zip(good, written, strict=True):
        known_as = _name(items[index], name)
        if isinstance(row, UnknownPersonError):
            answers[index] = Answer(index, known_as, "error", code=row.code, detail=str(row))
        else:
            answers[index] = Answer(index, known_as, row.outcome.value, row.id)
    return [answers[index].shown() for index in range(len(items))]


def _name(item: Any, name: str) -> str | None:
    value = item.get(name) if isinstance(item, dict) else None
    return value[:128] if isinstance(value, str) else None


# --- Traders and followers -------------------------------------------------------------------------------------------
def read_trader(item: Mapping[str, Any]) -> tuple[str, Document]:
    fields: Document = {}
    if "name" in item:
        fields["name"] = read_text(item, "name", 200)
    if "portfolio_value" in item:
        fields["portfolio_value"] = read_number(item, "portfolio_value")
    if "currency" in item:
        fields["currency"] = read_text(item, "currency", 12)
    return read_id(item, "external_id"), fields


def read_follower(item: Mapping[str, Any]) -> tuple[str, Document]:
    external_id, fields = read_trader(item)
    if "locale" in item:
        fields["locale"] = read_locale(item)
    if "timezone" in item:
        fields["timezone"] = read_timezone(item)
    return external_id, fields


def write_traders(wanted: list[tuple[str, Document]]) -> list[Row]:
    rows = upserts.write_traders(merged(wanted))
    return [rows[key] for key, _ in wanted]


def write_followers(wanted: list[tuple[str, Document]]) -> list[Row]:
    rows = upserts.write_followers(merged(wanted))
    return [rows[key] for key, _ in wanted]


# --- What belongs to somebody ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Owner:
    """Whom an item is about: `field` is follower_id or trader_id."""

    field: str
    external_id: str


def _owner(item: Mapping[str, Any]) -> Owner:
    given = [field for field in _UNKNOWN if item.get(field) is not None]
    if len(given) != 1:
        raise BadValueError("Either follower_id or trader_id is needed.")
    return Owner(given[0], read_id(item, given[0]))


class _People:
    """The ids of those whom items name."""

    def __init__(self, owners: Sequence[Owner]) -> None:
        models: dict[str, type[Trader | Follower]] = {"trader_id": Trader, "follower_id": Follower}
        self._ids = {
            field: upserts.known_ids(model, {o.external_id for o in owners if o.field == field})
            for field, model in models.items()
        }

    def id_of(self, owner: Owner) -> ObjectId:
        """Raises UnknownPersonError."""
        found = self._ids[owner.field].get(owner.external_id)
        if found is None:
            raise UnknownPersonError(owner.field)
        return found


def _resolved(
    wanted: Sequence[Any], resolve: Callable[[Any], Any], write: Callable[[list[Any]], list[Row]]
) -> list[Row | UnknownPersonError]:
    """Writes those whose people are known; the others are answered with the reason."""
    found: list[Any] = []
    for item in wanted:
        try:
            found.append(resolve(item))
        except UnknownPersonError as error:
            found.append(error)
    rows = iter(write([item for item in found if not isinstance(item, UnknownPersonError)]))
    return [item if isinstance(item, UnknownPersonError) else next(rows) for item in found]


# --- Follows ---------------------------------------------------------------------------------------------------------
def read_follow(item: Mapping[str, Any]) -> tuple[Owner, Owner, Document]:
    fields: Document = {}
    if "multiplier" in item:
        multiplier = read_number(item, "multiplier")
        fields["multiplier"] = ONE if multiplier is None else multiplier
    for name in ("allocation", "max_notional"):
        if name in item:
            fields[name] = read_number(item, name)
    trader = Owner("trader_id", read_id(item, "trader_id"))
    return trader, Owner("follower_id", read_id(item, "follower_id")), fields


def write_follows(wanted: list[tuple[Owner, Owner, Document]]) -> list[Row | UnknownPersonError]:
    people = _People([owner for trader, follower, _ in wanted for owner in (trader, follower)])

    def write(found: list[tuple[upserts.Pair, Document]]) -> list[Row]:
        rows = upserts.write_follows(merged(found)) if found else {}
        return [rows[pair] for pair, _ in found]

    return _resolved(wanted, lambda item: ((people.id_of(item[0]), people.id_of(item[1])), item[2]), write)


# --- Endpoints -------------------------------------------------------------------------------------------------------
def read_endpoint(item: Mapping[str, Any]) -> tuple[Owner, Address]:
    owner, address = _owner(item), read_address(item)
    if owner.field == "trader_id" and address.channel != Channel.DISCORD:
        raise BadValueError("channel: a trader's community channel is on Discord.")
    return owner, address


def write_endpoints(wanted: list[tuple[Owner, Address]]) -> list[Row | UnknownPersonError]:
    people = _People([owner for owner, _ in wanted])

    return _resolved(wanted, lambda item: (item[1], {item[0].field: people.id_of(item[0])}), upserts.write_endpoints)


# --- Portfolio values ------------------------------------------------------------------------------------------------
def read_portfolio(item: Mapping[str, Any]) -> tuple[Owner, Document]:
    fields: Document = {"portfolio_value": read_required_number(item, "portfolio_value")}
    if "currency" in item:
        fields["currency"] = read_text(item, "currency", 12)
    as_of: datetime | None = read_time(item, "as_of")
    if as_of is not None:
        fields["portfolio_as_of"] = as_of
    return _owner(item), fields


def write_portfolios(wanted: list[tuple[Owner, Document]]) -> list[Row | UnknownPersonError]:
    rows: dict[Owner, Row] = {}
    models: dict[str, type[Trader | Follower]] = {"trader_id": Trader, "follower_id": Follower}
    for field, model in models.items():
        mine = merged((owner.external_id, fields) for owner, fields in wanted if owner.field == field)
        if mine:
            rows |= {Owner(field, key): row for key, row in upserts.write_portfolios(model, mine).items()}
    return [rows.get(owner) or UnknownPersonError(owner.field) for owner, _ in wanted]
