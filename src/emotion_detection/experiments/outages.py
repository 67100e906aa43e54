"""When a store is out of order. Such a store costs no run: what it misses is kept and delivered later."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from requests import RequestException
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from emotion_detection.errors import StoreError, shorten
from emotion_detection.experiments.store_location import store_uri
from emotion_detection.redaction import scrub

REMOTE = ("http://", "https://", "postgresql", "mysql", "mssql")  # other stores are files, or wrong addresses
REFUSED = (401, 403, 408, 429)  # HTTP statuses of a server that may accept the same request later; and all from 500 on
SERVER_ERROR = 500
CONNECT_TIMEOUT = "PGCONNECT_TIMEOUT"  # a variable of PostgreSQL's client: seconds, at least 2
CONNECT_TIMEOUT_S = 10  # its default here
# What is wrong, by a part of MLflow's message.
REASONS = (
    (r"error code (401|403)\b", "it refuses the login, HTTP status {}"),
    (r"error code (\d{3})\b", "it answers with HTTP status {}"),
    (r"too many (\d{3}) error", "it answers with HTTP status {}"),
    (r"Connection (refused)", "it refuses connections"),
    (r"(Connection aborted|reset by peer|closed connection)", "it closes the connection"),
    (r"(timed out|timeout)", "it does not answer in time"),
    (r"(Name or service not known|Failed to resolve|name resolution)", "its host is unknown"),
)


class OutageError(StoreError):
    """The store cannot take something now: it does not respond, fails or refuses the login. It may succeed later.

    reason: what is wrong, in a few words. sentence: the same as a sentence without its period. until: when the same
    request succeeds.
    """

    until = "MLflow responds again"

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def sentence(self) -> str:
        return f"MLflow does not respond ({self.reason})"


class JournalError(OutageError):
    """What a store has missed of a run cannot be sent, as it is damaged or written by a newer version."""

    until = "it can be sent"

    @property
    def sentence(self) -> str:
        return f"MLflow cannot get what it has missed of this run ({self.reason})"


def is_outage(error: BaseException) -> bool:
    """Whether an error of MLflow or of what it uses says that the present store is out of order.

    Not an outage: a wrong setting, a request that the store understands and refuses, and any problem of a local file.
    """
    if not store_uri().startswith(REMOTE):
        return False
    if isinstance(error, MlflowException):
        return _is_temporary(error.get_http_status_code())
    if isinstance(error, RequestException):
        return error.response is None or _is_temporary(error.response.status_code)
    return isinstance(error, ConnectionError | TimeoutError | OperationalError | InterfaceError | PoolTimeoutError)


def _is_temporary(status: int) -> bool:
    return status in REFUSED or status >= SERVER_ERROR


def describe_outage(text: str) -> str:
    """What is wrong with the store in a few words, from the text of an error."""
    found = ((re.search(pattern, text), words) for pattern, words in REASONS)
    return next((words.format(match[1]) for match, words in found if match), shorten(scrub(text, store_uri())))


def limit_requests() -> None:
    """Let a server that does not respond cost less than a minute, unless the user has other limits."""
    # An unreachable server never loses a run, so there is no need for MLflow's retries, which take minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    os.environ.setdefault(CONNECT_TIMEOUT, str(CONNECT_TIMEOUT_S))


@contextmanager
def bounded(timeout_s: int, *, retries: int = 0) -> Iterator[None]:
    """Let calls to a server fail soon. Afterwards, the limits of `limit_requests` or of the user hold again."""
    limit_requests()  # before: a default that the body sets would be removed at its end
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s)}
    with variables(limits | {CONNECT_TIMEOUT: _connect_timeout(timeout_s)}):
        yield


def _connect_timeout(timeout_s: int) -> str:
    """The limit, or a longer one of the user, whose database may need it. The default is not the user's."""
    present = os.environ[CONNECT_TIMEOUT]
    is_longer = present.isdecimal() and int(present) > timeout_s
    return present if is_longer and present != str(CONNECT_TIMEOUT_S) else str(timeout_s)


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment in the body. MLflow reads its own at each call."""
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
