"""Tasks done by processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import DupFd
from threading import Thread

import torch

from pyaction.engine.tasks import Failure, Outcome, Task, prepare_worker

_ATTEMPTS = 2  # of a task whose process died
_GUARD = "a script must call engine.extract below if __name__ == '__main__':"


def run_locally(tasks: Sequence[Task], workers: int, lock: int) -> Generator[tuple[Task, Outcome], None, None]:
    """Yields the outcome of each task, in the order in which they come.

    A process that dies (for want of memory, say) has another one take its place. Its task is begun once more, and then
    given up. All processes have ended when the generator is closed, and end with this process, even if it is killed.

    Args:
        tasks: What to do.
        workers: How many processes.
        lock: A file descriptor that is open in each of them.

    Raises:
        RuntimeError: No process can be started.
    """
    # Each process starts as a copy of one that has imported everything: at once, and sharing its memory.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "pyaction.video.pyav_reader", "PIL.Image"])
    waiting = deque((task, 1) for task in tasks)
    pool = [_Worker(context, number, lock) for number in range(min(workers, len(tasks)))]
    any_has_started = False
    try:
        while waiting or any(worker.task for worker in pool):
            for worker in pool:
                if worker.task is None and waiting:
                    worker.give(*waiting.popleft())
            busy = {worker.connection: worker for worker in pool if worker.task}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                task, attempt = worker.task, worker.attempt
                assert task is not None
                try:
                    outcome = worker.take()
                except (EOFError, OSError):  # it has died
                    end = worker.end()
                    if not any_has_started:
                        raise RuntimeError(f"a process {end} as it started; {_GUARD}") from None
                    pool[pool.index(worker)] = _Worker(context, worker.number, lock)
                    if attempt < _ATTEMPTS:
                        waiting.appendleft((task, attempt + 1))
                        continue
                    outcome = Failure(f"{task.source} was given up: the process that did it {end}, {_ATTEMPTS} times")
                any_has_started = True
                if outcome is not None:
                    yield task, outcome
    finally:
        for worker in pool:
            worker.end()


class _Worker:
    """One process, and what it is doing."""

    def __init__(self, context: ForkServerContext, number: int, lock: int) -> None:
        self.number = number
        self.task: Task | None = None
        self.attempt = 0
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, number, _Inherited(lock)), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, task: Task, attempt: int) -> None:
        """Has it begin a task."""
        self.task, self.attempt = task, attempt
        try:
            self.connection.send(task)
        except OSError:
            pass  # it has died, which `take` will tell

    def take(self) -> Outcome | None:
        """Takes what it has sent: the outcome, or at first None: it has started.

        Raises:
            EOFError, OSError: The process died.
        """
        outcome: Outcome | None = self.connection.recv()
        if outcome is not None:
            self.task = None
        return outcome

    def end(self) -> str:
        """Ends the process at once. Returns how it ended."""
        self._process.kill()
        self._process.join()
        self.connection.close()
        code = self._process.exitcode or 0
        return f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"


class _Inherited:
    """A file descriptor that comes along when it is sent to a process that is being started."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[object, ...]:
        return _take_along, (DupFd(self._descriptor),)


def _take_along(duplicate: object) -> int:
    return duplicate.detach()  # type: ignore[attr-defined]


def _work(connection: Connection, number: int, lock: int) -> None:
    """What a process does: tasks that come, until none comes."""
    # Ctrl-C goes to all processes of a terminal; the one that the user began sees to the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    prepare_worker()
    connection.send(None)
    while True:
        try:
            task: Task = connection.recv()
        except EOFError:
            return
        if task.device == "cuda":
            torch.cuda.set_device(number % torch.cuda.device_count())
        connection.send(task.run())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
