"""What every part of the REST API shares: errors, authentication, pages, limits, idempotency."""
