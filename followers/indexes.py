"""Indexes that Django's own options cannot say: full unique ones, TTL, partial on a type."""

from __future__ import annotations

from typing import Any

Keys = list[tuple[str, int]]


def replace_unique(schema_editor: Any, table: str, *columns: str) -> None:
    """Makes the unique index on `columns` a full one, under its name.

    The backend makes unique indexes partial ({$type}), as SQL allows many nulls; MongoDB then uses them for no
    ordinary look-up, and each one scans the collection. These columns are never null.
    """
    target = schema_editor.connection.get_collection(table)
    keys: Keys = [(column, 1) for column in columns]
    for name, index in list(target.index_information().items()):
        if index["key"] == keys and index.get("unique"):
            target.drop_index(name)
            target.create_index(keys, name=name, unique=True)
            return
    raise LookupError(f"{table} has no unique index on {columns}.")


def create_index(schema_editor: Any, table: str, keys: Keys, **options: Any) -> None:
    """Creates an index by pymongo's words; nothing happens where it is there already."""
    schema_editor.connection.get_collection(table).create_index(keys, **options)
