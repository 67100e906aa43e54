"""Where studies live: sqlite, PostgreSQL, or Optuna's gRPC proxy before one of them."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from emotion_detection.errors import InputError
from emotion_detection.experiments.urls import redact_uri

PROXY_PORT = 13000
ANSWER_S = 10  # how long a server may take to answer
LOCKED_S = 60  # how long another process may keep a sqlite file locked
TRIES = 5  # workers that make the tables of an empty database at the same moment get in each other's way


def connect_storage(uri: str) -> BaseStorage:
    """The storage at that address; InputError names it if it cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial's end is told by us, in MLflow and in one bar
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    with translate_errors(uri):
        try:
            address = make_url(uri)
            return _proxy(address) if address.drivername == "grpc" else _database(address)
        except (ValueError, RuntimeError) as error:  # a port that is no number; tables of another Optuna
            raise _refusal(uri, error) from error


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn what storages raise into the one sentence a person needs."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, grpc.RpcError, ConnectionError, ImportError) as error:
        raise _refusal(uri, error) from error


def _refusal(uri: str, error: Exception) -> InputError:
    # Optuna's own words about a failed write guess at invalid data; what happened is what the database said.
    causes = (getattr(one, "orig", None) for one in (error, error.__cause__))
    said = next((cause for cause in causes if cause), error)
    reason = " ".join(str(said).split())[:300] or type(error).__name__
    return InputError(
        f"the storage {redact_uri(uri)} cannot be used ({reason}); nothing is lost: "
        "mend or start it and type the same command again, or name another with --storage"
    )


def _proxy(address: URL) -> BaseStorage:
    proxy = GrpcStorageProxy(host=address.host or "127.0.0.1", port=address.port or PROXY_PORT)
    proxy.wait_server_ready(timeout=ANSWER_S)
    return proxy


def _database(address: URL) -> BaseStorage:
    arguments: dict[str, int] = {}
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
        arguments = {"connect_timeout": ANSWER_S}
    elif address.drivername == "sqlite":
        arguments = {"timeout": LOCKED_S}
    uri = address.render_as_string(hide_password=False)
    for tried in range(1, TRIES + 1):
        try:
            storage = RDBStorage(uri, engine_kwargs={"connect_args": arguments})
        except SQLAlchemyError:
            if tried == TRIES:
                raise
            time.sleep(0.5 * tried)
        else:
            break
    if address.drivername == "sqlite":
        _alone(storage.engine)
    return storage


def _alone(engine: Engine) -> None:
    """Let nobody else in between the look at a trial and the step that takes it, as PostgreSQL does by itself.

    Python's sqlite opens a transaction with the first write, so that two processes could both see a trial waiting.
    """
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # of the connections made before
