"""Work in another thread, a little ahead of whoever uses it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Iterator[Item], Generic[Item]):
    """What a generator yields, made by a thread of its own.

    An error of the generator is raised where its next item would have come. All of the generator runs in the one
    thread, its end included; where the `with` block is left early, that is after the item that is being made.

    Args:
        source: The generator; begun by nobody else.
        most: How many items may be ready before they are asked for.

    Example:
        >>> with Ahead((number**2 for number in range(4)), most=2) as squares:
        ...     list(squares)
        [0, 1, 4, 9]
    """

    def __init__(self, source: Generator[Item], most: int) -> None:
        self._source = source
        self._ready: SimpleQueue[Item | _End] = SimpleQueue()
        self._room = Semaphore(most)
        self._stopped = False
        self._thread = Thread(target=self._work)

    def __enter__(self) -> Ahead[Item]:
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Ends the thread."""
        self._stopped = True
        self._room.release()
        self._thread.join()

    def __next__(self) -> Item:
        item = self._ready.get()
        if isinstance(item, _End):
            self._ready.put(item)  # whoever asks again is told the same
            raise item.reason
        self._room.release()
        return item

    def _work(self) -> None:
        try:
            with closing(self._source):
                while self._room.acquire() and not self._stopped:
                    self._ready.put(next(self._source))
        except BaseException as error:  # StopIteration too
            self._ready.put(_End(error))


class _End:
    """Stands behind the last item."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason
