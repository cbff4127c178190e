"""The one clock of the project; tests move it here."""

from datetime import UTC, datetime


def now() -> datetime:
    """Now, as MongoDB can keep it: aware UTC in whole milliseconds."""
    at = datetime.now(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def as_utc(at: datetime) -> datetime:
    """MongoDB gives naive times that mean UTC; this says so."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
