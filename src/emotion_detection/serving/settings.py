"""What a service serves, and how much of it."""

import os
from dataclasses import dataclass, field

from emotion_detection.serving.listening import Listening


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a request may bring, and how many requests there may be."""

    body_bytes: int = 32_000_000
    held_bytes: int = 256_000_000
    """Bodies of all requests that arrive, wait or are answered, together."""
    pixels: int = 50_000_000
    """Of a picture. Each one takes about 6 bytes of memory while it is decoded."""
    pictures: int = 16
    """Of a request."""
    faces: int = 256
    """Crops in a request, or faces in a picture."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Requests that are read at the same time."""
    queue: int = 128
    """Requests that wait for a thread."""
    per_client: int = 96
    """Requests of one address that wait or are read."""
    body_grace_s: float = 20.0
    """Then a body must have arrived at `body_rate` or more."""
    body_rate: int = 20_000
    """Bytes per second, on average."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a service. A worker process gets them as they are."""

    model: str
    """An ONNX file or a name in the registry."""
    first: str | None = None
    """An ONNX file to serve until the registry has a model of that name."""
    listening: Listening
    detector: str = "haar"
    limits: Limits = Limits()
    token: str | None = field(default=None, repr=False)
    """What clients must send as a bearer token; None lets everyone in."""
    shadow: str | None = None
    shadow_share: float = 0.1
    drain_s: float = 2.0
    """How long to answer after SIGTERM, not ready, so that load balancers notice it."""
