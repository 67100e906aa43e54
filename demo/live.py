"""What the page asks of the server: frames up a WebSocket and readings down, and pictures read in memory."""

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from numpy.typing import NDArray

from emotion_detection.errors import InputError
from emotion_detection.inference.detector import FaceDetector, to_gray, to_model_input
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import decode_image
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.recognizer import Recognizer
from serving import Model, Serving

FRAME_BYTES = 2_000_000
PICTURE_BYTES = 30_000_000
FRAME_PX = 1920 * 1080
SHOWN_PX = 1600  # the longer side of a photo that is sent back
HEAT_PX = 144
POLICY_VIOLATION = 1008
TOO_BIG = 1009

Told = dict[str, Any]


class Live:
    """The routes of one server. Each socket has a Follower of its own; nothing of a frame outlives its answer."""

    def __init__(self, serving: Serving, detector: FaceDetector, *, faces: str) -> None:
        self._serving, self._detector, self._faces = serving, detector, faces
        self.open = 0  # sockets
        # OpenCV and onnxruntime use all cores for one frame: more threads would only make each frame later.
        self._pool = ThreadPoolExecutor(2, "reading")
        self.router = APIRouter()
        self.router.add_api_websocket_route("/live", self.stream)
        self.router.add_api_route("/photo", self.photo, methods=["POST"])
        self.router.add_api_route("/faces", lambda: self._faces)
        self.router.add_api_route("/serving", self.state)

    def recognizer(self, model: Model, faces: str) -> Recognizer:
        return Recognizer(model.classifier, self._detector, faces="largest" if faces == "largest" else "all")

    def state(self) -> Told:
        """Which model serves, what is wrong with its registry, and how many cameras are open."""
        serving = self._serving
        return {"source": serving.model.source, "uri": serving.uri, "message": serving.message, "open": self.open}

    async def stream(self, socket: WebSocket) -> None:
        if not _same_host(socket.headers.get("origin"), socket.headers.get("host")):
            await socket.close(POLICY_VIOLATION)  # another site's page must not look through this camera's eyes
            return
        await socket.accept()
        self.open += 1
        try:
            await self._answer_frames(socket)
        except WebSocketDisconnect:
            pass
        finally:
            self.open -= 1

    async def _answer_frames(self, socket: WebSocket) -> None:
        faces, model, follower = self._faces, None, None
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                faces, follower = _mode(message["text"], faces), None
                continue
            content = message.get("bytes") or b""
            if len(content) > FRAME_BYTES:
                await socket.close(TOO_BIG)
                return
            if follower is None or model is not self._serving.model:
                model = self._serving.model
                follower = FaceTracker(self.recognizer(model, faces))
            loop = asyncio.get_running_loop()
            told = await loop.run_in_executor(self._pool, read_frame, follower, content)
            await socket.send_text(json.dumps(told))

    async def photo(self, request: Request) -> Told:
        """A picture's bytes -> its readings, with the faces and heat maps as data URLs; or one sentence."""
        if not _same_host(request.headers.get("origin"), request.headers.get("host")):
            return {"error": "This page does not belong to this server."}
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > PICTURE_BYTES:
                return {"error": f"The picture has more than {PICTURE_BYTES // 1_000_000} MB: make it smaller."}
        model = self._serving.model
        recognizer = self.recognizer(model, self._faces)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, read_photo, recognizer, model, bytes(content))


def read_frame(follower: FaceTracker, content: bytes) -> Told:
    """A frame's JPEG -> what the page draws."""
    start = time.perf_counter()
    try:
        frame = decode_image(content, "the camera's picture")
        if frame.shape[0] * frame.shape[1] > FRAME_PX:
            raise InputError("the camera's picture is too large: send at most 1920x1080")
    except InputError as error:
        return {"error": f"{error}"}
    readings = follower.recognize(frame, time.monotonic())
    spent = 1000 * (time.perf_counter() - start)
    return {"readings": told(readings), "ms": spent, "height": frame.shape[0], "width": frame.shape[1]}


def read_photo(recognizer: Recognizer, model: Model, content: bytes) -> Told:
    try:
        frame = decode_image(content, "the picture")
    except InputError as error:
        return {"error": f"{error}"}
    readings = recognizer.recognize(frame)
    shown = _shrunk(frame)
    listed = told(readings)
    faces = to_model_input(to_gray(frame), [reading.box for reading in readings])
    for entry, reading, face, heat in zip(listed, readings, faces, heats(model, faces), strict=True):
        entry["face"] = _url(cv2.resize(face, (HEAT_PX, HEAT_PX), interpolation=cv2.INTER_CUBIC), ".png")
        if heat is not None:
            entry["heat"] = _url(_overlay(face, heat[reading.probabilities.argmax()]), ".png")
    size = {"height": frame.shape[0], "width": frame.shape[1]}
    return {"readings": listed, "picture": _url(cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), ".jpg"), **size}


def told(readings: Sequence[Reading]) -> list[Told]:
    return [
        {
            "box": [reading.box.left, reading.box.top, reading.box.width, reading.box.height],
            "emotion": reading.emotion,
            "confidence": round(reading.confidence, 4),
            "unsure": bool(reading.unsure),
            "track": reading.track,
            "probabilities": [round(float(share), 4) for share in reading.probabilities],
        }
        for reading in readings
    ]


def heats(model: Model, faces: NDArray[np.uint8]) -> Sequence[NDArray[np.float32] | None]:
    """A map f32 (7,h,w) for each face, or None where the network has none."""
    return [None] * len(faces) if model.heat is None or not len(faces) else list(model.heat.maps(faces))


def _overlay(face: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The face in gray under its evidence in colour, BGR u8 (HEAT_PX,HEAT_PX,3)."""
    size = (HEAT_PX, HEAT_PX)
    gray = cv2.cvtColor(cv2.resize(face, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    smooth = np.clip(cv2.resize(heat, size, interpolation=cv2.INTER_CUBIC), 0, 1)[..., np.newaxis]
    colour = cv2.applyColorMap((255 * smooth).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return (gray * (1 - 0.6 * smooth) + colour * 0.6 * smooth).astype(np.uint8)


def _shrunk(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = SHOWN_PX / max(frame.shape[:2])
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame


def _url(picture: NDArray[np.uint8], suffix: str) -> str:
    encoded = base64.b64encode(cv2.imencode(suffix, picture)[1].tobytes()).decode()
    return f"data:image/{'jpeg' if suffix == '.jpg' else 'png'};base64,{encoded}"


def _mode(text: str, before: str) -> str:
    try:
        asked = json.loads(text)["faces"]
    except (ValueError, KeyError, TypeError):
        return before
    return asked if asked in ("all", "largest") else before


def _same_host(origin: str | None, host: str | None) -> bool:
    """Programs send no origin, a browser always does."""
    return origin is None or urlsplit(origin).netloc == host
