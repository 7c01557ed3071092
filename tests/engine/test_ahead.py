"""A generator in a thread of its own."""

import threading
import time
from collections.abc import Generator

import pytest

from pyaction.engine.ahead import Ahead


def test_every_item_in_order_from_one_other_thread() -> None:
    def threads() -> Generator[tuple[int, int]]:
        for number in range(50):
            yield number, threading.get_ident()

    with Ahead(threads(), most=3) as items:
        numbers, idents = zip(*items, strict=True)
        assert list(items) == []  # asked again after the end
    assert numbers == tuple(range(50))
    assert len(set(idents)) == 1 and threading.get_ident() not in idents


def test_no_further_ahead_than_wanted() -> None:
    made = []

    def source() -> Generator[int]:
        for number in range(9):
            made.append(number)
            yield number

    with Ahead(source(), most=3) as items:
        for taken in range(3):
            deadline = time.monotonic() + 5
            while len(made) < taken + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)  # for one too many
            assert made == list(range(taken + 3))
            assert next(items) == taken


def test_error_comes_after_the_items() -> None:
    def source() -> Generator[int]:
        yield 7
        raise OSError(5, "broken", "video.mp4")

    with Ahead(source(), most=4) as items:
        assert next(items) == 7
        for _ in range(2):
            with pytest.raises(OSError, match="broken") as caught:
                next(items)
            assert caught.value.filename == "video.mp4"


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_leaving_early_ends_the_generator_in_its_thread(taken: int) -> None:
    ended_in = []

    def source() -> Generator[int]:
        try:
            yield from range(1000)
        finally:
            ended_in.append(threading.current_thread())

    with pytest.raises(ZeroDivisionError), Ahead(source(), most=2) as items:
        assert [next(items) for _ in range(taken)] == list(range(taken))
        while not (taken or items._ready.qsize()):
            time.sleep(0.001)
        raise ZeroDivisionError
    (thread,) = ended_in
    assert thread is not threading.current_thread() and not thread.is_alive()


def test_one_may_feed_another() -> None:
    def doubled(most: int) -> Generator[int]:
        with Ahead((number for number in range(1000)), most) as numbers:
            for number in numbers:
                yield 2 * number

    with Ahead(doubled(2), most=2) as items:
        assert [next(items) for _ in range(5)] == [0, 2, 4, 6, 8]
