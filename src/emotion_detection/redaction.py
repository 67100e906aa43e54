"""Remove secrets from every text that leaves the process: errors, logs, output, tags and logged files."""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

MASK = "***"
SHORT = 6  # a shorter secret is only removed where it is a word of its own
NAME = (
    r"(?<![\w.-])[\w.-]*(?:passw(?:or)?d|passphrase|pwd|token|secret|signature|credentials?"
    r"|(?:api|access|account|private)[_-]?key)"
)
# Environment variables whose value is a secret.
SECRET_VARIABLE = re.compile(
    r"PASSW(OR)?D|PASSPHRASE|_(PASS|PWD|PAT)$|TOKEN$|SECRET|(^|_|API|ACCESS)KEY$|CREDENTIALS?$|CONNECTION_STRING"
)
QUERY_SECRET = re.compile(rf"[?&;#](?:{NAME}|key|sig|auth|code|sas|session)=([^&;#]+)", re.IGNORECASE)
NO_SECRETS = {"0", "1", "true", "false", "yes", "no", "on", "off", "none", "null"}
QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""

PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), replacement)
    for pattern, flags, replacement in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL, MASK),
        # The query of a URL or of its path; not that of the links to MLflow's pages.
        (r"(?<=[^\s?])\?(?!workflowType=)[\w.\-%\[\]]+=[^\s\"'<>)\]}]*", 0, f"?{MASK}"),
        (r"([?&;#](?:key|sig|auth|code|sas|session)=)[^\s&;\"'<>]*", re.IGNORECASE, rf"\1{MASK}"),
        # Headers.
        (r"((?:proxy-)?authorization[\"']?\s*[:=]\s*)(?:[\"'][^\"']*[\"']|[^\r\n,;}]*)", re.IGNORECASE, rf"\1{MASK}"),
        (r"((?:set-)?cookie[\"']?\s*[:=]\s*)(?:[\"'][^\"']*[\"']|[^\r\n}]*)", re.IGNORECASE, rf"\1{MASK}"),
        (r"\b((?:[Bb]earer|BEARER|Basic|Digest|Negotiate)\s+)[\w.~+/=-]{6,}", 0, rf"\1{MASK}"),
        # password=..., "token": "...", and options such as --api-key
        (rf"({NAME}[\"']?\s*[=:]\s*)(?:{QUOTED}|[^\s,;&\"'<>}}\])]+)", re.IGNORECASE, rf"\1{MASK}"),
        (rf"((?=--){NAME}\s+)(?:{QUOTED}|\S+)", re.IGNORECASE, rf"\1{MASK}"),
        # Tokens whose form is known: GitHub, GitLab, Hugging Face, AWS, OpenAI, Slack, Google, JWT.
        (r"\b(?:gh[oprsu]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|hf_\w{16,}|A[KS]IA[A-Z0-9]{16}|sk-[\w-]{16,}"
         r"|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*)", 0, MASK),
    )
)  # fmt: skip


def scrub(text: str, *addresses: str) -> str:
    """The text without secrets: those of URLs, headers, settings, the environment and these addresses."""
    for secret in sorted(_secrets(addresses), key=len, reverse=True):
        text = _remove(text, secret)
    text = re.sub(r"\S+", _remove_login, text)
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def contains_secret(content: bytes) -> bool:
    """Whether the bytes contain the value of a secret of the environment. Patterns of secrets are not searched."""
    return any(secret.encode() in content for secret in _secrets(()) if len(secret) >= SHORT)


def _remove_login(word: re.Match[str]) -> str:
    """A word without the password of a URL. It may contain an unescaped @ / : ? or #, so the last @ counts."""
    start, separator, rest = word[0].partition("://")
    login, at, host = rest.rpartition("@")
    if not separator or not at:
        return word[0]
    user = re.match(r"[\w.+-]{1,32}:(?=.)", login)  # a login without a password may be a token
    return f"{start}://{user[0] if user else ''}{MASK}@{host}"


def redact_uri(uri: str) -> str:
    """An address as it may be shown: without password and query."""
    shown = uri if "://" in uri else uri.rpartition("@")[2]
    return scrub(re.sub(r"\S+", _remove_login, shown).partition("?")[0], uri)


def _secrets(addresses: Iterable[str]) -> set[str]:
    """The secrets of the environment and of addresses, in each form in which a text may contain them."""
    plain = {value for name, value in os.environ.items() if _is_secret(name, value)}
    for address in (*addresses, *(value for value in os.environ.values() if "://" in value)):
        plain |= _secrets_of_address(address)
    forms = (str, unquote, lambda text: quote(text, safe=""), quote, quote_plus, _json, lambda text: repr(text)[1:-1])
    found = {form(secret) for secret in plain for form in forms}
    return {secret for secret in found if secret.strip() and secret.lower() not in NO_SECRETS}


def _is_secret(name: str, value: str) -> bool:
    is_path = os.sep in value and os.path.exists(value)  # of a file with a key, for example
    return bool(SECRET_VARIABLE.search(name.upper())) and not is_path


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _secrets_of_address(address: str) -> set[str]:
    """The password of an address, or its user if there is no password, and the secrets of its query."""
    _, separator, rest = address.partition("://")
    login, at, _ = rest.rpartition("@")
    _, colon, password = login.partition(":")
    secrets = set(QUERY_SECRET.findall(rest)) | ({password if colon else login} if at else set())
    return secrets if separator else set()


def _remove(text: str, secret: str) -> str:
    if len(secret) >= SHORT:
        return text.replace(secret, MASK)
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)


def find_login_fault(uri: str) -> str:
    """What is wrong with the login of an address, or "".

    Libraries read a part of a password with unescaped characters as the name of a host, and ask the network for it.
    """
    scheme, _, rest = uri.partition("://")
    login, at, _ = rest.rpartition("@")
    unescaped = r"[@/?#\s]" if scheme.startswith("http") else r"[@\s]"
    if at and re.search(unescaped, login) and not _is_path(rest):
        return "its password contains @, /, ?, # or a space: write them as %40, %2F, %3F, %23 and %20"
    return ""


def _is_path(rest: str) -> bool:
    """Whether the @ of an address belongs to the path of a server without a login, as in host:5000/team@work."""
    try:
        host = urlsplit(f"//{rest}")
        return "@" not in host.netloc and (host.port is not None or ":" not in host.netloc)
    except ValueError:
        return False


class _ScrubbedStream:
    """A text stream whose output has no secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(scrub(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def scrubbed_output() -> Iterator[None]:
    """Remove secrets from all that is printed and logged in the body, by this project and by libraries."""
    streams, factory = (sys.stdout, sys.stderr), logging.getLogRecordFactory()
    sys.stdout, sys.stderr = (_ScrubbedStream(stream) for stream in streams)
    logging.setLogRecordFactory(lambda *arguments, **settings: _scrub_record(factory(*arguments, **settings)))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        logging.setLogRecordFactory(factory)


def _scrub_record(record: logging.LogRecord) -> logging.LogRecord:
    """Libraries keep streams of their own, so that the record itself must have no secrets."""
    try:
        record.msg, record.args = scrub(record.getMessage()), None
    except (TypeError, ValueError):  # logging reports a message that does not fit its arguments
        return record
    if record.exc_info and record.exc_info[0]:
        record.exc_text = scrub("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return record
