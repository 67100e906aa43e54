"""The optional bearer token that clients must send."""

import hmac
import os
import re
from hashlib import sha256
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from emotion_detection.errors import UsageError
from emotion_detection.serving.access import header_values
from emotion_detection.serving.answers import send_error

VARIABLE = "EMOTION_DETECTION_TOKEN"
TOKEN = re.compile(r"[\x21-\x7e]{16,1000}")
# What an orchestrator asks, and pages that contain nothing but documentation.
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
OPEN_FOLDER = "/static-offline-docs/"


def read_token(path: Path | None) -> str | None:
    """The token in a file, or that of the environment variable VARIABLE; None if neither is set. Raises UsageError."""
    if path is None:
        text, where = os.environ.get(VARIABLE), VARIABLE
    else:
        where = str(path)
        try:
            with path.open(encoding="utf-8") as stream:
                text = stream.read(10_000)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise UsageError(
                f"the token file {path} cannot be read ({reason}): check its name and permissions"
            ) from error
    if text is None:
        return None
    if not TOKEN.fullmatch(text.strip()):
        raise UsageError(
            f"{where} is no token: use 16 to 1000 ASCII characters without spaces, such as `openssl rand -hex 32`"
        )
    return text.strip()


class TokenMiddleware:
    """Refuses requests without the token. The comparison takes the same time for each wrong token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self._digest = app, sha256(token.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope) or self._accepts(header_values(scope, b"authorization")):
            await self.app(scope, receive, send)
        else:
            await send_error(send, 401, "The bearer token is missing or wrong: send Authorization: Bearer TOKEN.")

    def _accepts(self, values: list[str]) -> bool:
        if len(values) != 1:
            return False
        scheme, _, token = values[0].partition(" ")
        matches = hmac.compare_digest(sha256(token.strip().encode("latin-1")).digest(), self._digest)
        return matches and scheme.lower() == "bearer"


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return scope["method"] in ("GET", "HEAD") and (path in OPEN_PATHS or path.startswith(OPEN_FOLDER))
