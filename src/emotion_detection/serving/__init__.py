"""The service: an HTTP API for the served model, with its limits, its metrics and its shadow."""

from typing import Any

# For FastAPI. Without this, it gives requests to any OpenTelemetry provider that another library has set up.
NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
