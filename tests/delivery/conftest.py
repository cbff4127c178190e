"""The sandbox vendors, for whoever sends something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack.vendors.client import Sandbox
from devstack.vendors.process import VendorProcess
from followers.choices import VENDOR_CHANNELS


@pytest.fixture(scope="module")
def vendors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VendorProcess]:
    """All vendors, in one process of their own."""
    with VendorProcess(tmp_path_factory.mktemp("vendors")) as process:
        yield process


@pytest.fixture
def sandbox(vendors: VendorProcess) -> Sandbox:
    """Every vendor at its best, and with an empty memory."""
    for name in VENDOR_CHANNELS:
        vendors.sandbox.behave_well(name.value)
    vendors.sandbox.reset()
    return vendors.sandbox
