"""The API of the service, for programs on the page's server. It shares the queue and the limits of the demo."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from champion import ServedModel
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.inference.detector import FaceDetector
from emotion_detection.serving.answers import handle_known, handle_validation
from emotion_detection.serving.plain_api import PlainApi
from emotion_detection.serving.protocol import Protocol
from emotion_detection.serving.reader import Reader
from emotion_detection.serving.refusals import RequestError
from emotion_detection.serving.settings import Limits
from fair_queue import PHOTO_PAUSE, Client, FairQueue

Result = TypeVar("Result")

REQUESTS = 32  # that wait or are read
REQUESTS_PER_CLIENT = 16


class ApiQueue:
    """Lets requests wait among cameras and photos. Of each address, one request is read at a time."""

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._requests: Counter[str] = Counter()  # by client

    async def run(self, client: str, work: Callable[[], Result], **_: Any) -> Result:
        """Call `work` when it is the client's turn. Raises RequestError if too many requests wait."""
        if self._requests.total() >= REQUESTS:
            raise RequestError(503, "Too many requests wait: try again in a moment.")
        if self._requests[client] >= REQUESTS_PER_CLIENT:
            raise RequestError(429, "Too many of your requests wait: send fewer at the same time.")
        self._requests[client] += 1
        try:
            return await asyncio.wrap_future(self._queue.submit(Client(client, "api"), work, pause=PHOTO_PAUSE))
        finally:
            self._requests[client] -= 1
            self._requests += Counter()  # forgets clients without requests


def add_api(app: FastAPI, served_model: ServedModel, detector: FaceDetector, queue: FairQueue) -> None:
    """Add the routes /v1 and /v2 to an app."""
    reader = Reader(served_model, detector, ApiQueue(queue), Limits())
    app.include_router(PlainApi(reader).router)
    app.include_router(Protocol(reader).router)
    app.add_exception_handler(EmotionDetectionError, handle_known)
    app.add_exception_handler(RequestValidationError, handle_validation)
