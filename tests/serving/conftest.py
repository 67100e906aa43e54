"""A service with the shipped model, and clients that call its app in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.support.cameras import picture_file

from emotion_detection.inference.pretrained import MODEL
from emotion_detection.serving.app import build_app
from emotion_detection.serving.listening import Listening
from emotion_detection.serving.service import Service
from emotion_detection.serving.settings import Limits, Settings

URL = "http://127.0.0.1:8000"
LISTENING = Listening(host="127.0.0.1", port=8000)
Connect = Callable[..., Any]


@contextmanager
def connected(limits: Limits | None = None, *, log: list[dict] | None = None, **settings: Any) -> Iterator[TestClient]:
    """A client of a new service. log: gets the lines of the log."""
    defaults: dict[str, Any] = {"model": str(MODEL), "listening": LISTENING, "limits": limits or Limits(threads=2)}
    service = Service(Settings(**(defaults | settings)))
    lines: list[dict] = [] if log is None else log
    with TestClient(build_app(service, write=lines.append), base_url=URL, raise_server_exceptions=False) as client:
        client.app_state["service"] = service
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with connected() as client:
        yield client


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of two drawn people."""
    return picture_file("color", people=2)
