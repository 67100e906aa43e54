"""Why a request is refused: a status of HTTP and one sentence."""

from emotion_detection.errors import EmotionDetectionError, MediaError, TooLargeError
from emotion_detection.serving.served_model import NotReadyError

RETRY_S = 1  # for 429 and 503


class RequestError(EmotionDetectionError):
    """A request that is refused."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def status_of(error: EmotionDetectionError) -> int:
    """The status for an error: 413 for a picture that is too large, 422 for one that cannot be read."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, TooLargeError):
        return 413
    if isinstance(error, MediaError):
        return 422
    return 503 if isinstance(error, NotReadyError) else 500


def headers_of(status: int) -> dict[str, str]:
    """The headers that belong to a status."""
    if status in (429, 503):
        return {"retry-after": str(RETRY_S)}
    return {"www-authenticate": "Bearer"} if status == 401 else {}
