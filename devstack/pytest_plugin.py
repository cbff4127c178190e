"""The dev stack in tests: ``-p devstack.pytest_plugin`` (in ``addopts``) and the fixture ``stack``.

The settings of a stack of the tests' own are put into the environment before Django reads it, over anything that is
there: a test run can never reach, and empty, the servers of ``make stack``. Nothing runs until a test asks for
``stack``.

Under pytest-xdist each worker has servers of its own. They cost 0.7 GB and five seconds, and buy that a test may stop
a server, empty Redis or read the trades' topic from its beginning without disturbing another worker's tests; one
stack for all would also have to outlive the worker that happened to start it.
"""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from devstack.stack import Stack

_STACK = pytest.StashKey[Stack]()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    """Reserve ports and secrets and export them. A wrapper, because pytest-django loads the settings in this hook."""
    stack = Stack(Path(tempfile.mkdtemp(prefix="notifyhub-tests-")))
    stack.reserve()
    os.environ.update(stack.env)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(stack.directory / "metrics")
    early_config.stash[_STACK] = stack
    return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the reservation back, and with it everything in the temporary folder."""
    stack = config.stash.get(_STACK, None)
    if stack is not None:
        stack.stop()
        shutil.rmtree(stack.directory, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The four servers, running. A test that stops one starts it again before it ends."""
    reserved = pytestconfig.stash.get(_STACK, None)
    if reserved is None:
        pytest.fail("Load the plugin by -p devstack.pytest_plugin: in a conftest.py it comes after Django's settings.")
    with reserved:
        yield reserved
