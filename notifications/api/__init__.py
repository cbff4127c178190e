"""The followers' side of the REST API."""
