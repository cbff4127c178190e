"""What keeps one vendor's trouble its own: circuit breaker, bulkhead, rate limit and holds, asked through one gate."""
