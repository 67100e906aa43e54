"""URLs of servers and files, as they may be shown."""

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def redact_uri(uri: str) -> str:
    """Remove the password and the query from a URI."""
    try:
        return make_url(uri).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):  # not a URL, or its password contains unescaped special characters
        return uri.rpartition("@")[2].partition("?")[0]
