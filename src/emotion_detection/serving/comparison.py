"""What a service says about its challenger, and how to ask it."""

import os
from http.client import HTTPException
from typing import Any
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import BaseModel, ValidationError

from emotion_detection.errors import UsageError, shorten
from emotion_detection.serving.tokens import VARIABLE

TIMEOUT_S = 10
MAX_BYTES = 100_000
PATH = "/v1/shadow"


class Comparison(BaseModel):
    """What a champion and a challenger have said about the same faces."""

    champion: str
    challenger: str
    faces: int
    agreement: float | None
    """The share of faces with the same emotion; None without faces."""
    mean_difference: float | None
    """Of the probabilities; None without faces."""
    emotions: list[str]
    counts: list[list[int]]
    """Faces by the champion's emotion (rows) and the challenger's (columns)."""


class _NoRedirects(HTTPRedirectHandler):
    """A redirect is an error, because urllib would send the token to the other host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def read_comparison(address: str) -> Comparison:
    """Ask the service at an address, such as http://127.0.0.1:8000. Raises UsageError if it has no answer.

    The token of the service is taken from the environment.
    """
    token = os.environ.get(VARIABLE, "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"{shorten(address)} is not the address of a service: use one such as http://127.0.0.1:8000")
    try:
        request = Request(f"{address.rstrip('/')}{PATH}", headers=headers)
        with build_opener(_NoRedirects).open(request, timeout=TIMEOUT_S) as response:
            return Comparison.model_validate_json(response.read(MAX_BYTES))
    except (OSError, HTTPException, ValidationError, ValueError) as error:
        raise UsageError(
            f"{shorten(address)}{PATH} gives no comparison ({shorten(error, 100)}): start the service with --shadow"
        ) from error
