"""Where a server listens, and what is checked before it does."""

import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from emotion_detection.errors import UsageError

ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Where the server listens, and under which addresses it may be reached."""

    host: str
    port: int
    allowed_hosts: Sequence[str] = ()
    root_path: str = ""
    certificate: Path | None = None
    key: Path | None = None

    @property
    def behind_proxy(self) -> bool:
        """Whether a proxy on this computer may tell the address of a client in X-Forwarded-For."""
        return bool(self.allowed_hosts or self.root_path)

    @property
    def url(self) -> str:
        """The address for a browser on this computer."""
        host = self.host
        with suppress(ValueError):
            if ip_address(host).is_unspecified:  # listens on all addresses, but is none itself
                host = "::1" if ":" in host else "127.0.0.1"
        scheme = "http" if self.certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{self.root_path}"


class ListeningOptions(Protocol):
    """The options of a command that listens."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def allowed_host(self) -> Sequence[str]: ...
    @property
    def root_path(self) -> str: ...
    @property
    def ssl_certfile(self) -> Path | None: ...
    @property
    def ssl_keyfile(self) -> Path | None: ...


def listening_of(options: ListeningOptions) -> Listening:
    """Where a command with these options listens."""
    return Listening(
        host=plain_host(options.host),
        port=options.port,
        allowed_hosts=options.allowed_host,
        root_path=options.root_path.rstrip("/"),
        certificate=options.ssl_certfile,
        key=options.ssl_keyfile,
    )


def check_listening(listening: Listening) -> None:
    """Raise UsageError if a server cannot listen there."""
    if listening.root_path and not ROOT_PATH.fullmatch(listening.root_path):
        raise UsageError(f"--root-path {listening.root_path[:100]!r} is not a path: use a path such as /faces")
    check_certificate(listening.certificate, listening.key)
    check_port(listening.host, listening.port)


def check_certificate(certificate: Path | None, key: Path | None) -> None:
    """Raise UsageError if https cannot be served with these files."""
    if certificate is None:
        if key is not None:
            raise UsageError("--ssl-keyfile needs --ssl-certfile: name the certificate too")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:  # an OSError too
        reason = f"{certificate} and {key or 'the key in it'} cannot be used for https ({error.reason or 'wrong form'})"
        raise UsageError(f"{reason}; use a certificate and its unencrypted key in PEM format") from error
    except OSError as error:
        files = " or ".join(str(path) for path in (certificate, key) if path)
        raise UsageError(f"{files} cannot be read ({error.strerror}); check the name and the permissions") from error


def check_port(host: str, port: int) -> None:
    """Raise UsageError if a server cannot listen there."""
    if not host.strip():
        raise UsageError("--host is empty; use 127.0.0.1, or 0.0.0.0 to open it to your network")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(plain_host(host), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        reason = f"{host}:{port} cannot be used ({getattr(error, 'strerror', None) or 'not a host name'})"
        raise UsageError(f"{reason}; choose another --port or --host") from error


def plain_host(host: str) -> str:
    """The host without the brackets that an IPv6 address has in a URL."""
    return host.strip().removeprefix("[").removesuffix("]")
