"""Storages of studies: sqlite, PostgreSQL, or Optuna's gRPC proxy for one of them."""

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
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from emotion_detection.errors import StoreError
from emotion_detection.redaction import find_login_fault, redact_uri, scrub

PROXY_PORT = 13000
CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 60  # for a sqlite file that another process has locked
ATTEMPTS = 5  # processes that create the tables of an empty database at the same time disturb each other


def connect_storage(uri: str) -> BaseStorage:
    """Connect to the storage at an address; StoreError names it if it cannot be used."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # results go to MLflow and to the progress bar
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    fault = find_login_fault(uri)
    if fault:
        raise _store_error(uri, ValueError(fault))
    with translate_errors(uri):
        try:
            address = make_url(uri)
            return _proxy(address) if address.drivername == "grpc" else _database(address)
        except (ValueError, RuntimeError) as error:  # an invalid port; tables of another Optuna version
            raise _store_error(uri, error) from error


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Convert the exceptions of storages to StoreError."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, grpc.RpcError, ConnectionError, ImportError) as error:
        raise _store_error(uri, error) from error


def _store_error(uri: str, error: Exception) -> StoreError:
    # Optuna's message about a failed write suggests invalid data; the message of the database has the real reason.
    causes = (getattr(one, "orig", None) for one in (error, error.__cause__))
    original = next((cause for cause in causes if cause), error)
    reason = scrub(" ".join(str(original).split())[:300], uri) or type(error).__name__
    return StoreError(
        f"the storage {redact_uri(uri)} cannot be used ({reason}). Finished trials are kept: "
        "repair or start the storage and repeat the command, or choose another one with --storage"
    )


def _proxy(address: URL) -> BaseStorage:
    proxy = GrpcStorageProxy(host=address.host or "127.0.0.1", port=address.port or PROXY_PORT)
    proxy.wait_server_ready(timeout=CONNECT_TIMEOUT_S)
    return proxy


def _database(address: URL) -> BaseStorage:
    arguments: dict[str, int] = {}
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S}
    elif address.drivername == "sqlite":
        arguments = {"timeout": LOCK_TIMEOUT_S}
    uri = address.render_as_string(hide_password=False)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            storage = RDBStorage(uri, engine_kwargs={"connect_args": arguments})
        except DBAPIError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(0.5 * attempt)
        else:
            break
    if address.drivername == "sqlite":
        _lock_early(storage.engine)
    return storage


def _lock_early(engine: Engine) -> None:
    """Lock the sqlite file when a transaction starts, so that two processes cannot take the same queued trial.

    Python's sqlite starts a transaction at the first write, after the read. PostgreSQL needs no such lock.
    """
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # closes the connections that were opened before
