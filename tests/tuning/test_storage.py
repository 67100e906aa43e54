"""Errors of a storage become one sentence without a password."""

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from emotion_detection.errors import StoreError
from emotion_detection.redaction import redact_uri
from emotion_detection.tuning import storage


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://me:secret@host:5432/base", "postgresql://me:***@host:5432/base"),
        ("postgresql://host/base?user=me&password=secret", "postgresql://host/base"),
        ("postgresql://me:secret@host:port/base", "postgresql://me:***@host:port/base"),
        ("http://me:secret@host:5000", "http://me:***@host:5000"),
        ("me:secret@just words", "just words"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_password_is_not_shown(uri, expected):
    assert redact_uri(uri) == expected


@pytest.mark.parametrize("uri", ["postgresql://me:sec:ret/@host/base", "postgresql://host:port/base", "mango://host"])
def test_invalid_address_is_refused(uri, monkeypatch):
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    with pytest.raises(StoreError, match=r"^the storage .* cannot be used .*--storage$") as caught:
        storage.connect_storage(uri)
    assert "sec" not in str(caught.value)


def test_password_that_would_be_sent_as_a_host_name_is_refused():
    with pytest.raises(StoreError, match="its password contains @") as caught:
        storage.connect_storage("postgresql://me:sec@ret@host/base")
    assert "ret@" not in str(caught.value)


def test_foreign_text_does_not_show_the_password():
    with pytest.raises(StoreError) as caught, storage.translate_errors("postgresql://me:my-secret@host/base"):
        raise OperationalError("", {}, Exception("refused my-secret for user me"))
    assert "refused *** for user me" in str(caught.value)


def test_tables_of_another_optuna_version_are_refused(tmp_path, monkeypatch):
    def outdated(*_, **__):
        raise RuntimeError("The runtime optuna version 1 is no longer compatible with the table schema")

    monkeypatch.setattr(storage, "RDBStorage", outdated)
    with pytest.raises(StoreError, match="no longer compatible"):
        storage.connect_storage(f"sqlite:///{tmp_path / 'study.db'}")


def test_error_has_the_reason_of_the_database():
    full = OperationalError("UPDATE", {}, Exception("database or disk is full"))
    with pytest.raises(StoreError, match="disk is full") as caught, storage.translate_errors("sqlite:///study.db"):
        raise StorageInternalError("This typically happens due to invalid data") from full
    assert "invalid data" not in str(caught.value)
