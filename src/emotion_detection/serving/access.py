"""Who may use a server: the Host and the Origin of every request are checked before any route."""

import html
import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from emotion_detection.errors import UsageError

NETLOC = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}
SHOWN_CHARACTERS = 100  # of a name in a message
PROXY_HEADERS = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
PROXY = (
    "The request came through a proxy. Start the server with --allowed-host and the name in the browser's address bar."
)
HIDDEN_NAME = (
    "The proxy hides the name in the browser's address bar. Let it send this name in Host or in X-Forwarded-Host."
)
SAFE_METHODS = ("GET", "HEAD")
POLICY_VIOLATION = 1008  # WebSocket close code (RFC 6455, 7.4.1)
REFUSAL_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Refused</title>
<body style="font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto">
<h1>This request was refused</h1><p>{reason}</p></body></html>"""


class Address(NamedTuple):
    """A name or an IP address in one spelling, and the port if it is given."""

    name: str
    port: int | None


def parse_address(netloc: str) -> Address | None:
    """The address in a Host header or an origin, or None if it is malformed."""
    match = NETLOC.fullmatch(netloc)
    if match is None:  # "::1" is no valid Host, but some programs send it
        address = _ip_address(netloc)
        return None if address is None else Address(str(address), None)
    return Address(normalize(match["name"]), int(match["port"]) if match["port"] else None)


def normalize(name: str) -> str:
    """One spelling for a name: lower case, no brackets, no dot at the end, IPv4 instead of mapped IPv6."""
    name = name.strip().removeprefix("[").removesuffix("]").removesuffix(".").lower()
    address = _ip_address(name)
    return name if address is None else str(address)


def is_loopback(name: str) -> bool:
    """Whether a normalized name always means this computer."""
    address = _ip_address(name)
    return name == "localhost" if address is None else address.is_loopback


def parse_allowed_name(text: str) -> str:
    """A value of --allowed-host, normalized. Raises UsageError if it is not a name."""
    try:
        address = parse_address(text.strip() if text.isascii() else text.strip().encode("idna").decode())
    except UnicodeError:
        address = None
    if address is None:
        shown = text[:SHOWN_CHARACTERS]
        raise UsageError(
            f"--allowed-host {shown!r} is not a name: use a name such as demo.example.org, without http://"
        )
    return address.name


class AllowedHosts:
    """The names under which a server may be reached.

    On a loopback address: the spellings of loopback and the names of --allowed-host. On another address: also every
    IP address and this computer's names. Another name could be a foreign website's that resolves to this computer
    (DNS rebinding); an IP address cannot be.
    """

    def __init__(self, host: str, allowed: Iterable[str] = ()) -> None:
        self.is_local = is_loopback(normalize(host))
        self.allowed = frozenset(map(parse_allowed_name, allowed))
        own = () if self.is_local else (host, socket.gethostname(), f"{socket.gethostname()}.local", socket.getfqdn())
        self._names = self.allowed | frozenset(map(normalize, own))

    def accepts(self, name: str) -> bool:
        """Whether a normalized name may stand in a Host header."""
        if name in self._names or is_loopback(name):
            return True
        return not self.is_local and _ip_address(name) is not None

    def accepts_origin(self, origin: str, hosts: Sequence[Address]) -> bool:
        """Whether a page of this origin may use the server that it reaches as one of `hosts`."""
        page = _parse_origin(origin)
        if page is None:
            return False
        # A proxy may change or drop the port, so the port of a name that the user allowed is not compared.
        default = DEFAULT_PORTS[urlsplit(origin).scheme]
        return page.name in self.allowed or any(page == Address(host.name, host.port or default) for host in hosts)


class AccessMiddleware:
    """Refuses requests of foreign pages and requests under foreign names, with a reason that a person can read."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self.app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = _refusal(scope, self._hosts) if scope["type"] in ("http", "websocket") else None
        if reason is None:
            await self.app(scope, receive, send)
        else:
            await refuse(scope, receive, send, status=403, reason=reason)


class RootPathMiddleware:
    """Puts the path of a proxy in front of the request's path, unless the proxy has left it there."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path = scope["path"]
            has_prefix = path == self._root_path or path.startswith(f"{self._root_path}/")
            scope = {**scope, "root_path": self._root_path, "path": path if has_prefix else self._root_path + path}
        await self.app(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send, *, status: int, reason: str) -> None:
    """Answer a request or a WebSocket's handshake with a page or JSON that states the reason, and close it."""
    accept = header_values(scope, b"accept")
    if scope["type"] == "http" and scope["method"] in SAFE_METHODS and any("text/html" in value for value in accept):
        content, kind = REFUSAL_PAGE.format(reason=html.escape(reason)).encode(), b"text/html; charset=utf-8"
    else:
        content, kind = json.dumps({"error": reason, "detail": reason}).encode(), b"application/json"
    prefix = ""
    if scope["type"] == "websocket":
        await receive()  # the request to connect
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason[:100]})
            return
        prefix = "websocket."
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), (b"connection", b"close")]
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": content})


def header_values(scope: Scope, name: bytes) -> list[str]:
    """All values of a header; `name` is in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _refusal(scope: Scope, hosts: AllowedHosts) -> str | None:
    """Why a request is refused, or None."""
    host = header_values(scope, b"host")
    if len(host) != 1:
        return "The request does not name one host: send one Host header."
    # Proxies rewrite Host and put the name that the browser used into this header. Gradio builds its links from it.
    names = host + [value.split(",")[0].strip() for value in header_values(scope, b"x-forwarded-host")]
    addresses = []
    for name in names:
        address = parse_address(name)
        if address is None or not hosts.accepts(address.name):
            return f"Nothing is served under the name {name[:SHOWN_CHARACTERS]!r}. {_hint(address)}"
        addresses.append(address)
    return _hidden_name(scope, hosts, addresses) or _foreign_origin(scope, hosts, addresses)


def _hidden_name(scope: Scope, hosts: AllowedHosts, addresses: Sequence[Address]) -> str | None:
    """Why a proxy is refused that hides its own name. The page would stay empty without this reason."""
    is_proxy = any(name.lower() in PROXY_HEADERS for name, _ in scope["headers"])
    if not is_proxy or any(address.name in hosts.allowed for address in addresses):
        return None
    return HIDDEN_NAME if hosts.allowed else PROXY


def _foreign_origin(scope: Scope, hosts: AllowedHosts, addresses: Sequence[Address]) -> str | None:
    """Why a request of a page is refused."""
    origins = header_values(scope, b"origin")
    for origin in origins:
        if not hosts.accepts_origin(origin, addresses):
            shown = origin[:SHOWN_CHARACTERS]
            return f"Pages of {shown!r} may not use this server. {_hint(_parse_origin(origin))}"
    return None if origins else _foreign_page(scope)


def _foreign_page(scope: Scope) -> str | None:
    """Why a request without an Origin is refused. Browsers say in Sec-Fetch-Site where it comes from."""
    site, mode, target = (
        "".join(header_values(scope, b"sec-fetch-" + name)[:1]) for name in (b"site", b"mode", b"dest")
    )
    reads = scope["type"] == "http" and scope["method"] in SAFE_METHODS
    if site in ("", "same-origin", "none") or (site == "same-site" and reads):
        return None
    if reads and mode == "navigate" and target in ("", "document"):
        return None  # a person follows a link
    return "Pages of another website may not use this server. Open it in a tab of its own."


def _hint(address: Address | None) -> str:
    if address is None:
        return "Open the server in a tab of its own, at the address that it printed when it started."
    return (
        f"If this is the name of your proxy or of a forwarded port, "
        f"start the server with --allowed-host {address.name[:SHOWN_CHARACTERS]}"
    )


def _parse_origin(origin: str) -> Address | None:
    """The address of a page, with its port, or None for null and for malformed origins."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or origin.lower() != f"{parts.scheme}://{parts.netloc}".lower():
        return None
    address = parse_address(parts.netloc)
    return address and Address(address.name, address.port or DEFAULT_PORTS[parts.scheme])


def _ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a name spells, or None. An IPv4 address in IPv6 notation counts as IPv4."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
