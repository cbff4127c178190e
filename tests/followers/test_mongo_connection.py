"""A connection to MongoDB that went silent: nobody says so, and no statement may wait for it for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings
from pymongo import MongoClient
from pymongo.errors import AutoReconnect

from devstack.proxy import Faults, Proxy
from devstack.stack import Stack

GIVEN_UP_WITHIN_SECONDS = 25
"""Less than the lease of 30 s, under which the statement may have been sent."""


def test_a_statement_on_a_connection_that_went_silent_is_given_up_within_the_lease(stack: Stack) -> None:
    options = settings.DATABASES["default"]["OPTIONS"]
    with ThreadPoolExecutor(1) as threads, Proxy(stack.mongodb.port) as proxy:
        url = f"mongodb://{proxy.address}/?directConnection=true"
        with MongoClient(url, **options, retryReads=False) as client:
            client.admin.command("ping")
            proxy.set(Faults(silent=True))

            waiting = threads.submit(client.admin.command, "ping")

            with pytest.raises(AutoReconnect):
                waiting.result(GIVEN_UP_WITHIN_SECONDS)
