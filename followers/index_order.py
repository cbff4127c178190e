"""ORM queries that are sorted by an index.

The database backend (django-mongodb-backend 5.2.4) puts `{$addFields: {name: "$name"}}` before every `$sort`, and
copies a field of an embedded document to a name of its own to sort by that. MongoDB takes both for computed fields: it
reads the whole collection and sorts it in memory, whatever index there is, before the limit.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import connections
from django.db.models import QuerySet
from django.db.models.sql import Query
from django_mongodb_backend.compiler import SQLCompiler
from django_mongodb_backend.fields.embedded_model import EmbeddedModelTransform

Rows = TypeVar("Rows", bound=QuerySet[Any])


class _IndexOrderCompiler(SQLCompiler):
    """Leaves out the fields that are only set to themselves, and sorts by an embedded field where it lies."""

    def _get_ordering(self) -> Any:
        fields, ordering, extra = super()._get_ordering()
        paths = {
            name: expression.as_mql(self, self.connection)
            for name, expression in fields
            if isinstance(expression, EmbeddedModelTransform) and expression.is_simple_column
        }
        sorted_by = type(ordering)((paths.get(name, name), direction) for name, direction in ordering.items())
        return tuple(field for field in fields if field[0] not in paths), sorted_by, extra

    def build_query(self, columns: Any = None) -> Any:
        query = super().build_query(columns)
        if query.extra_fields:
            computed = {name: value for name, value in query.extra_fields.items() if value != f"${name}"}
            query.extra_fields = computed
        return query


class _IndexOrderQuery(Query):
    def get_compiler(self, using: str | None = None, connection: Any = None, elide_empty: bool = True) -> Any:
        if self.compiler != "SQLCompiler":
            return super().get_compiler(using, connection, elide_empty)
        return _IndexOrderCompiler(self, connection or connections[using or "default"], using, elide_empty)


def in_index_order(rows: Rows) -> Rows:
    """The same rows, and all that is derived from them, with sorts that an index can serve."""
    ordered = rows.all()
    ordered.query = rows.query.chain(_IndexOrderQuery)
    return ordered
