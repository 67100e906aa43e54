"""Addresses of servers and files, as they may be shown."""

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def redact_uri(uri: str) -> str:
    """An address without its password, wherever that stands."""
    try:
        return make_url(uri).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # no address, or a password with signs that should have been escaped
        return uri.rpartition("@")[2].partition("?")[0]
