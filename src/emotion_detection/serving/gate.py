"""How many requests are read at the same time, and how many may wait."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect

from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.settings import Limits

Result = TypeVar("Result")

LARGE_BYTES = 500_000  # of a request that probably takes long; a small file can have many pixels, too
PREPARED = 8  # threads, before there are requests


class Gate:
    """Runs work in a few threads, in the order in which it comes, and refuses it if too much waits."""

    def __init__(
        self, limits: Limits, waiting: Callable[[], AbstractContextManager[None]] = lambda: nullcontext()
    ) -> None:
        """waiting: entered while a request waits."""
        self._limits, self._waiting = limits, waiting
        self._free = asyncio.Semaphore(limits.threads)
        # One thread is left to small requests, so that a client with large pictures does not stop the others.
        self._free_for_large = asyncio.Semaphore(max(limits.threads - 1, 1))
        self._clients: Counter[str] = Counter()  # requests that wait or are read
        self._pool = ThreadPoolExecutor(limits.threads, "reader")
        self._running: set[Future[Any]] = set()  # also what nobody waits for any more

    async def run(
        self, client: str, work: Callable[[], Result], *, size: int, left: Callable[[], Awaitable[bool]]
    ) -> Result:
        """Call `work` in a thread. size: bytes of the request. left: whether the client has left meanwhile.

        Raises RequestError if too many requests wait, and ClientDisconnect if nobody waits for the result.
        """
        self._check(client)
        self._clients[client] += 1
        try:
            async with self._free_for_large if size > LARGE_BYTES else nullcontext():
                with self._waiting():
                    await self._free.acquire()
                try:
                    if await left():
                        raise ClientDisconnect
                    return await asyncio.wrap_future(self._submit(work))
                finally:
                    self._free.release()
        finally:
            self._clients[client] -= 1
            self._clients += Counter()  # forgets clients without requests

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        future = self._pool.submit(work)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def _check(self, client: str) -> None:
        if self._clients.total() >= self._limits.threads + self._limits.queue:
            raise RequestError(503, "Too many requests wait: try again in a moment.")
        if self._clients[client] >= self._limits.per_client:
            raise RequestError(429, "Too many of your requests wait: send fewer at the same time.")

    def prepare(self, work: Callable[[], object]) -> None:
        """Call `work` once in each of the first threads, before there are requests."""
        threads = min(self._limits.threads, PREPARED)
        together = threading.Barrier(threads)  # otherwise one thread could do it all
        for done in [self._pool.submit(lambda: (together.wait(), work())) for _ in range(threads)]:
            done.result()

    def close(self, wait_s: float | None = None) -> bool:
        """Wait for the work that runs, by default however long it takes, and return whether it has ended.

        Only os._exit may end the process before: C++ code must not run while Python ends.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not wait(self._running, wait_s).not_done
