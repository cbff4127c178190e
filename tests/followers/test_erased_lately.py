"""What a process knows of who was erased lately: whole from its first answer on, and never older than it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from bson import ObjectId

from followers import erasures
from followers.erasures import Lately

ANN, BEN = ObjectId(), ObjectId()


def test_nobody_is_answered_before_the_first_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    is_read, goes_on = Event(), Event()

    def slow(*args: Any, **kwargs: Any) -> set[ObjectId]:
        is_read.set()
        assert goes_on.wait(30)
        return {ANN}

    monkeypatch.setattr(erasures, "erased_since", slow)
    lately = Lately()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lately.ids)
        assert is_read.wait(30)
        second = pool.submit(lately.ids)
        with pytest.raises(TimeoutError):
            second.result(0.1)
        goes_on.set()
        assert first.result(30) == second.result(30) == {ANN}


def test_a_reading_that_began_before_an_erasure_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lately = Lately()
    monkeypatch.setattr(erasures, "erased_since", lambda *args, **kwargs: {ANN})
    assert lately.ids() == {ANN}

    def overtaken(*args: Any, **kwargs: Any) -> set[ObjectId]:
        lately.forget()  # Ben is erased while this is on its way.
        return set()

    lately.forget()
    monkeypatch.setattr(erasures, "erased_since", overtaken)
    assert lately.ids() == {ANN}
    monkeypatch.setattr(erasures, "erased_since", lambda *args, **kwargs: {ANN, BEN})
    assert lately.ids() == {ANN, BEN}
