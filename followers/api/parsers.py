"""Bodies of calls: JSON whose numbers keep every digit, and no larger than is sensible."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from followers.members import exactly


class ExactJSONParser(BaseParser):
    """JSON by followers.members.exactly; it never makes a float."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            # A request as a whole, where Django looks at its size; read piece by piece it would be of any size.
            return exactly(stream.body if isinstance(stream, HttpRequest) else stream.read())
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {error}.") from error
