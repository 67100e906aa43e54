"""Threads that read pictures, shared fairly: the client that has used the least time recently is served next."""

import math
import threading
import time
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")

READER_THREADS = 2  # OpenCV and onnxruntime use all cores for one frame: more threads only delay each frame
MEMORY_S = 10.0  # time constant with which used time is forgotten
# A job of n times the milliseconds costs n^EXPONENT times as much. A client with expensive frames thus gets less time
# than one with cheap frames, and cannot take a full share from cameras.
EXPONENT = 1.5
BACKGROUND = 2.0  # factor of the cost of long work, whose single steps nobody waits for
# A job cannot be interrupted, and OpenCV uses all cores for it. While cameras are active, photos and videos therefore
# pause after each job, for so many times as long as it took.
PHOTO_PAUSE, VIDEO_PAUSE = 4.0, 1.0
ACTIVE_S = 1.0  # since the last job of a camera
POLL_S = 0.05  # while a job waits for the end of a pause
SHARES_PER_ADDRESS = 4  # the clients behind one address count at most for so many
FORGOTTEN = 1.0  # a cost that no longer matters: that of one millisecond
REMEMBERED = 256  # clients; then those with a forgotten cost are dropped
CLOSE_S = 10.0  # for the jobs that run


@dataclass(frozen=True)
class Client:
    """One that is served: a camera, or all photos or all videos of an address."""

    address: str
    name: str


class Shares:
    """What clients have used recently, and who is next. Times are seconds of any clock. Not thread-safe."""

    def __init__(self) -> None:
        self._costs: dict[Client, tuple[float, float]] = {}  # a cost and when it was true

    def __len__(self) -> int:
        return len(self._costs)

    def next(self, waiting: Collection[Client], now_s: float) -> Client:
        """The client whose address has used the least, and of its clients the one that has used the least."""
        return min(waiting, key=lambda client: (self._address_cost(client, now_s), self._cost(client, now_s)))

    def charge(self, client: Client, spent_s: float, now_s: float, *, weight: float = 1.0) -> None:
        """Count the time of a job."""
        cost = weight * (1000 * spent_s) ** EXPONENT
        self._costs[client] = (self._cost(client, now_s) + cost, now_s)
        if len(self._costs) > REMEMBERED:
            self._costs = {one: cost for one, cost in self._costs.items() if self._cost(one, now_s) > FORGOTTEN}

    def enter(self, client: Client, now_s: float) -> None:
        """Add a camera. It begins with what cameras of its address had used that have left."""
        self._costs[client] = (self._cost(_gone(client.address), now_s), now_s)

    def leave(self, client: Client, now_s: float) -> None:
        """Remove a camera. Its address keeps its cost, so that reconnecting saves nothing."""
        gone = _gone(client.address)
        self._costs[gone] = (max(self._cost(gone, now_s), self._cost(client, now_s)), now_s)
        self._costs.pop(client, None)

    def _cost(self, client: Client, now_s: float) -> float:
        cost, at_s = self._costs.get(client, (0.0, now_s))
        return cost * math.exp((at_s - now_s) / MEMORY_S)

    def _address_cost(self, client: Client, now_s: float) -> float:
        costs = [self._cost(other, now_s) for other in self._costs if other.address == client.address]
        return sum(costs) / min(len(costs) or 1, SHARES_PER_ADDRESS)


@dataclass(frozen=True)
class _Job:
    client: Client
    weight: float
    pause: float
    work: Callable[[], Any]
    future: "Future[Any]"


class FairQueue:
    """Runs jobs in a few threads, at most one of each client at a time."""

    def __init__(self, threads: int = READER_THREADS) -> None:
        self._jobs: list[_Job] = []
        self._running: set[Client] = set()
        self._shares = Shares()
        self._changed = threading.Condition()
        self._closed = False
        self._camera_s = -math.inf  # the last end of a job without a pause
        self._pausing = 0  # jobs with a pause that run
        self._paused_until_s = -math.inf
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(
        self, client: Client, work: Callable[[], Result], *, weight: float = 1.0, pause: float = 0.0
    ) -> "Future[Result]":
        """Run `work` when it is the client's turn. Raises RuntimeError after `close`.

        weight: a factor of its cost. pause: how long jobs with a pause wait after it, in multiples of its time, while
        cameras are active.
        """
        future: Future[Result] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the demo is stopping")
            self._jobs.append(_Job(client, weight, pause, work, future))
            self._changed.notify()
        return future

    def steps(self, client: Client, work: Generator[Result, None, None]) -> Generator[Result, None, None]:
        """Yield what `work` yields; each of its steps is a job. For long work, such as a video."""
        end = object()
        try:
            while (value := self._step(client, lambda: next(work, end))) is not end:
                yield value  # type: ignore[misc]
        finally:
            work.close()

    def _step(self, client: Client, work: Callable[[], Result]) -> Result:
        return self.submit(client, work, weight=BACKGROUND, pause=VIDEO_PAUSE).result()

    def enter(self, client: Client) -> None:
        """Register a camera."""
        with self._changed:
            self._shares.enter(client, time.monotonic())

    def leave(self, client: Client) -> None:
        """Forget a camera."""
        with self._changed:
            self._shares.leave(client, time.monotonic())

    def close(self) -> None:
        """Cancel the waiting jobs, refuse new ones and wait for those that run: C++ code must not run at exit."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._changed.notify_all()
        end_s = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(end_s - time.monotonic(), 0))

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            start_s = time.monotonic()
            if not job.future.set_running_or_notify_cancel():
                self._finish(job, start_s)
                continue
            try:
                result = job.work()
            except BaseException as error:  # the caller who waits gets it
                self._finish(job, start_s)
                job.future.set_exception(error)
            else:
                self._finish(job, start_s)
                job.future.set_result(result)

    def _next(self) -> _Job | None:
        """Wait for a job whose client has no other job running; None after `close`."""
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                free = [job for job in self._jobs if job.client not in self._running]
                waiting = [job for job in free if not job.pause or not self._is_paused(now_s)]
                if waiting:
                    chosen = self._shares.next([job.client for job in waiting], now_s)
                    job = next(job for job in waiting if job.client == chosen)
                    self._jobs.remove(job)
                    self._running.add(job.client)
                    self._pausing += job.pause > 0
                    return job
                self._changed.wait(POLL_S if free else None)
            return None

    def _is_paused(self, now_s: float) -> bool:
        """Whether jobs with a pause wait: after one of them, or while one runs, if cameras are active."""
        return now_s < self._camera_s + ACTIVE_S and (self._pausing > 0 or now_s < self._paused_until_s)

    def _finish(self, job: _Job, start_s: float) -> None:
        now_s = time.monotonic()
        with self._changed:
            self._running.discard(job.client)
            if job.pause:
                self._pausing -= 1
                self._paused_until_s = now_s + job.pause * (now_s - start_s)
            else:
                self._camera_s = now_s
            self._shares.charge(job.client, now_s - start_s, now_s, weight=job.weight)
            self._changed.notify()


def _gone(address: str) -> Client:
    """Stands for the cameras of an address that have left."""
    return Client(address, "gone")
