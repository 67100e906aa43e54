"""Routes of the demo: a WebSocket that takes frames and returns readings, and photos. Pictures stay in memory."""

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from urllib.parse import urlsplit

import cv2
import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response, WebSocket, WebSocketDisconnect
from numpy.typing import NDArray

from champion import LoadedModel, ServedModel
from emotion_detection.arrays import Frame, Gray, Images
from emotion_detection.errors import MediaError
from emotion_detection.inference.detector import FaceDetector, to_gray, to_model_input
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import decode_image
from emotion_detection.inference.recognizer import Recognizer
from examples import EXAMPLES, draw_example

Answer = dict[str, Any]  # sent as JSON
FacesMode = Literal["all", "largest"]

FRAME_BYTES = 2_000_000
FRAME_PX = 1920 * 1080
PHOTO_BYTES = 30_000_000
SHOWN_PX = 1600  # the longer side of a photo in the answer
FACE_PX = 144  # the side of a face in the answer
READER_THREADS = 2  # OpenCV and onnxruntime use all cores for one frame: more threads only delay each frame
POLICY_VIOLATION, TOO_BIG = 1008, 1009  # WebSocket close codes (RFC 6455, 7.4.1)


class Routes:
    """The routes of one server. Each WebSocket has its own FaceTracker."""

    def __init__(self, served_model: ServedModel, detector: FaceDetector, *, faces: FacesMode) -> None:
        """faces: which faces of a frame to read, unless a page asks otherwise."""
        self._served_model, self._detector, self._faces = served_model, detector, faces
        self._open_sockets = 0
        self._threads = ThreadPoolExecutor(READER_THREADS, "reader")
        self._examples = {name: draw_example(name) for name in EXAMPLES}
        self.router = APIRouter()
        self.router.add_api_websocket_route("/webcam", self.webcam)
        self.router.add_api_route("/photo", self.photo, methods=["POST"])
        self.router.add_api_route("/examples/{name}.jpg", self.example)
        self.router.add_api_route("/faces", lambda: self._faces)
        self.router.add_api_route("/serving", self.serving)

    def serving(self) -> Answer:
        """The served model, the registry's error message, and the number of open cameras."""
        served = self._served_model
        return {
            "source": served.current.source,
            "uri": served.uri,
            "message": served.message,
            "open": self._open_sockets,
        }

    def example(self, name: str) -> Response:
        """An example picture."""
        if name not in self._examples:
            raise HTTPException(404)
        return Response(self._examples[name], media_type="image/jpeg")

    async def webcam(self, socket: WebSocket) -> None:
        """Answer each JPEG frame with its readings; a text message {"faces": "all" | "largest"} sets the mode."""
        if not _same_origin(socket.headers.get("origin"), socket.headers.get("host")):
            await socket.close(POLICY_VIOLATION)  # a page of another site must not read faces
            return
        await socket.accept()
        self._open_sockets += 1
        try:
            await self._answer_frames(socket)
        except WebSocketDisconnect:
            pass
        finally:
            self._open_sockets -= 1

    async def _answer_frames(self, socket: WebSocket) -> None:
        faces, model, tracker = self._faces, None, None
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                faces, tracker = _parse_mode(message["text"], faces), None
                continue
            content = message.get("bytes") or b""
            if len(content) > FRAME_BYTES:
                await socket.close(TOO_BIG)
                return
            if tracker is None or model is not self._served_model.current:
                model = self._served_model.current
                tracker = FaceTracker(Recognizer(model.classifier, self._detector, faces=faces))
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, read_frame, tracker, content)
            await socket.send_text(json.dumps(answer))

    async def photo(self, request: Request) -> Answer:
        """Read the picture in the request's body; the answer has faces and heat maps as data URLs, or an error."""
        if not _same_origin(request.headers.get("origin"), request.headers.get("host")):
            return {"error": "This page does not belong to this server."}
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > PHOTO_BYTES:
                return {"error": f"The picture is larger than {PHOTO_BYTES // 1_000_000} MB. Use a smaller one."}
        model = self._served_model.current
        recognizer = Recognizer(model.classifier, self._detector, faces=self._faces)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, read_photo, recognizer, model, bytes(content))


def read_frame(tracker: FaceTracker, content: bytes) -> Answer:
    """The readings of a JPEG frame, its size in px, and the milliseconds that reading took."""
    start_s = time.perf_counter()
    try:
        frame = decode_image(content, "the camera's picture", max_pixels=FRAME_PX)
    except MediaError as error:
        return {"error": str(error)}
    readings = tracker.recognize(frame, time.monotonic())
    spent_ms = 1000 * (time.perf_counter() - start_s)
    answers = [reading.as_dict() for reading in readings]
    return {"readings": answers, "ms": spent_ms, "height": frame.shape[0], "width": frame.shape[1]}


def read_photo(recognizer: Recognizer, model: LoadedModel, content: bytes) -> Answer:
    """The readings of a picture, each with its face and heat map, and the picture itself, scaled down."""
    try:
        frame = decode_image(content, "the picture")
    except MediaError as error:
        return {"error": str(error)}
    readings = recognizer.recognize(frame)
    answers = [reading.as_dict() for reading in readings]
    faces = to_model_input(to_gray(frame), [reading.box for reading in readings])
    for answer, reading, face, heat in zip(answers, readings, faces, heat_maps(model, faces), strict=True):
        answer["face"] = _data_url(_enlarged(face), ".png")
        if heat is not None:
            answer["heat"] = _data_url(_overlay(face, heat[reading.probabilities.argmax()]), ".png")
    picture = _data_url(cv2.cvtColor(_scaled_down(frame), cv2.COLOR_RGB2BGR), ".jpg")
    return {"readings": answers, "picture": picture, "height": frame.shape[0], "width": frame.shape[1]}


def heat_maps(model: LoadedModel, faces: Images) -> Sequence[NDArray[np.float32] | None]:
    """A map f32 (7,h,w) for each face, or None if the network has none."""
    if model.class_activation is None or not len(faces):
        return [None] * len(faces)
    return list(model.class_activation.heatmaps(faces))


def _overlay(face: Gray, heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The gray face u8 (48,48) with the map f32 (h,w) in color, BGR u8 (FACE_PX,FACE_PX,3)."""
    gray = cv2.cvtColor(_enlarged(face), cv2.COLOR_GRAY2BGR)
    smooth = np.clip(cv2.resize(heat, (FACE_PX, FACE_PX), interpolation=cv2.INTER_CUBIC), 0, 1)[..., np.newaxis]
    color = cv2.applyColorMap((255 * smooth).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return (gray * (1 - 0.6 * smooth) + color * 0.6 * smooth).astype(np.uint8)


def _enlarged(face: Gray) -> Gray:
    return cv2.resize(face, (FACE_PX, FACE_PX), interpolation=cv2.INTER_CUBIC)


def _scaled_down(frame: Frame) -> Frame:
    scale = SHOWN_PX / max(frame.shape[:2])
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame


def _data_url(image: NDArray[np.uint8], suffix: str) -> str:
    """An image, gray or BGR, as a data URL; suffix is .jpg or .png."""
    encoded = base64.b64encode(cv2.imencode(suffix, image)[1].tobytes()).decode()
    return f"data:image/{'jpeg' if suffix == '.jpg' else 'png'};base64,{encoded}"


def _parse_mode(text: str, default: FacesMode) -> FacesMode:
    try:
        mode = json.loads(text)["faces"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return default
    return mode if mode in ("all", "largest") else default


def _same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from the demo's own page. Only browsers send an origin."""
    try:
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False
