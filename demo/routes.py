"""Routes of the demo: a WebSocket that takes frames and returns readings, and photos. Pictures stay in memory."""

import asyncio
import base64
import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.websockets import WebSocketDisconnect

from champion import LoadedModel, ServedModel
from emotion_detection.arrays import Frame, Gray, Images
from emotion_detection.decoding.images import decode
from emotion_detection.errors import MediaError, ModelError
from emotion_detection.inference.detector import FaceDetector, to_gray, to_model_input
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.recognizer import Recognizer
from examples import EXAMPLES, draw_example
from fair_queue import PHOTO_PAUSE, Client, FairQueue
from limits import PHOTO_BYTES, client_name, too_large

Answer = dict[str, Any]  # sent as JSON
FacesMode = Literal["all", "largest"]

FRAME_BYTES = 2_000_000
FRAME_PX = 1920 * 1080
TEXT_CHARACTERS = 1_000
SHOWN_PX = 1600  # the longer side of a photo in the answer
FACE_PX = 144  # the side of a face in the answer
CAMERAS = 64
CAMERAS_PER_CLIENT = 16
PHOTOS = 8  # in memory at the same time
PHOTOS_PER_CLIENT = 3
PHOTO_S = 0.5  # the shortest time for one of several photos of a client
REFUSAL_S = 1.0  # before a client may try again
WAITING = 1  # the page sends the next frame while one is read; a client with more waiting frames pushes
# Factors of the cost of the next frame, so that cameras with faces come first when there is too much to do.
PUSHING = 4.0
FACELESS = 2.0
MESSAGE_S = 1 / 60  # the shortest time for one message: reading the next one waits
TOO_BIG, TRY_LATER = 1009, 1013  # WebSocket close codes (RFC 6455, 7.4.1, and IANA)


class Routes:
    """The routes of one server. Each WebSocket has its own FaceTracker."""

    def __init__(
        self,
        served_model: ServedModel,
        detectors: Mapping[str, FaceDetector],
        *,
        faces: FacesMode,
        queue: FairQueue | None = None,
    ) -> None:
        """detectors: by name, the default first. faces: which faces to read, unless a page asks for others."""
        self._served_model, self._detectors, self._faces = served_model, detectors, faces
        self._queue = queue or FairQueue()
        self._cameras: Counter[str] = Counter()  # by client
        self._photos: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._examples = {name: draw_example(name) for name in EXAMPLES}
        self.router = APIRouter()
        self.router.add_api_websocket_route("/webcam", self.webcam)
        self.router.add_api_route("/photo", self.photo, methods=["POST"])
        self.router.add_api_route("/examples/{name}.jpg", self.example)
        self.router.add_api_route("/faces", lambda: self._faces)
        self.router.add_api_route("/detectors", lambda: list(self._detectors))
        self.router.add_api_route("/serving", self.serving)

    def serving(self) -> Answer:
        """The served model, the registry's error message, and the number of open cameras."""
        served = self._served_model
        return {
            "source": served.current.source,
            "uri": served.uri,
            "message": served.message,
            "open": self._cameras.total(),
        }

    def example(self, name: str) -> Response:
        """An example picture."""
        if name not in self._examples:
            raise HTTPException(404)
        return Response(self._examples[name], media_type="image/jpeg")

    async def webcam(self, socket: WebSocket) -> None:
        """Answer each JPEG frame with its readings.

        A text message sets the mode: {"faces": "all" | "largest"}, {"detector": one of /detectors}, or both.
        """
        address = client_name(socket.scope)
        await socket.accept()
        if self._cameras.total() >= CAMERAS or self._cameras[address] >= CAMERAS_PER_CLIENT:
            await socket.close(TRY_LATER, "Too many cameras are open. Close another page of the demo.")
            return
        client = Client(address, f"camera {next(self._numbers)}")
        self._cameras[address] += 1
        self._queue.enter(client)
        try:
            await self._answer_frames(socket, client)
        except WebSocketDisconnect:
            pass
        finally:
            self._queue.leave(client)
            self._cameras[address] -= 1

    async def _answer_frames(self, socket: WebSocket, client: Client) -> None:
        """Answer in order. While frames wait here, no more are read from the network, so the client must wait too."""
        waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(WAITING + 1)
        receiver = asyncio.create_task(_receive(socket, waiting))
        camera = _Camera(self._faces, next(iter(self._detectors)))
        weight = 1.0
        try:
            while (message := await waiting.get())["type"] != "websocket.disconnect":
                start_s = time.monotonic()
                if _is_too_long(message):
                    await socket.close(TOO_BIG, "The message is too long.")
                    return
                if message.get("text") is not None:
                    notice = await asyncio.to_thread(camera.set_mode, message["text"], self._detectors)
                    if notice:
                        await socket.send_text(json.dumps({"notice": notice, "detector": camera.detector}))
                else:
                    tracker = camera.follow(self._served_model.current, self._detectors)
                    content = message.get("bytes") or b""
                    job = self._queue.submit(client, lambda t=tracker, c=content: read_frame(t, c), weight=weight)  # type: ignore[misc]
                    answer = await asyncio.wrap_future(job)
                    weight = (PUSHING if waiting.full() else 1.0) * (1.0 if answer.get("readings") else FACELESS)
                    await socket.send_text(json.dumps(answer))
                await asyncio.sleep(start_s + MESSAGE_S - time.monotonic())
        finally:
            receiver.cancel()

    async def photo(self, request: Request) -> Response:
        """Read the picture in the request's body; the answer has faces and heat maps as data URLs, or an error."""
        address = client_name(request.scope)
        if self._photos.total() >= PHOTOS or self._photos[address] >= PHOTOS_PER_CLIENT:
            await asyncio.sleep(REFUSAL_S)
            return JSONResponse({"error": "Too many pictures are being read. Wait a moment and try again."}, 429)
        self._photos[address] += 1
        start_s = time.monotonic()
        try:
            answer = await self._read_photo(request, Client(address, "photos"))
            if self._photos[address] > 1:
                await asyncio.sleep(start_s + PHOTO_S - time.monotonic())
            return JSONResponse(answer)
        finally:
            self._photos[address] -= 1

    async def _read_photo(self, request: Request, client: Client) -> Answer:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > PHOTO_BYTES:
                return {"error": too_large("picture", PHOTO_BYTES)}
        model, name = self._served_model.current, request.query_params.get("detector", "")
        try:
            wanted = name if name in self._detectors else next(iter(self._detectors))
            detector = await asyncio.to_thread(self._detectors.__getitem__, wanted)  # may be downloaded
        except ModelError as error:
            return {"error": str(error)}
        faces = request.query_params.get("faces")
        recognizer = Recognizer(model.classifier, detector, faces=faces if faces in ("all", "largest") else self._faces)  # type: ignore[arg-type]
        weight = PUSHING if self._photos[client.address] > 1 else 1.0
        job = self._queue.submit(
            client, lambda: read_photo(recognizer, model, bytes(content)), weight=weight, pause=PHOTO_PAUSE
        )
        return await asyncio.wrap_future(job)


class _Camera:
    """The mode of one WebSocket and the people in front of its camera."""

    def __init__(self, faces: FacesMode, detector: str) -> None:
        self._faces, self.detector = faces, detector
        self._model: LoadedModel | None = None
        self._tracker: FaceTracker | None = None

    def set_mode(self, text: str, detectors: Mapping[str, FaceDetector]) -> str:
        """Set what a text message asks for; the people are then counted from one again. Ignores unknown values.

        Returns a sentence if the detector cannot be loaded, which then stays the same; otherwise "".
        """
        try:
            wanted = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        if not isinstance(wanted, dict):
            return ""
        if wanted.get("faces") in ("all", "largest"):
            self._faces = wanted["faces"]
        self._tracker = None
        return self._set_detector(wanted.get("detector"), detectors)

    def _set_detector(self, name: Any, detectors: Mapping[str, FaceDetector]) -> str:
        if isinstance(name, str) and name in detectors:
            try:
                detectors[name]  # may be downloaded
            except ModelError as error:
                return str(error)
            self.detector = name
        return ""

    def follow(self, model: LoadedModel, detectors: Mapping[str, FaceDetector]) -> FaceTracker:
        """The tracker, a new one after a change of the mode or the model."""
        if self._tracker is None or model is not self._model:
            self._model = model
            recognizer = Recognizer(model.classifier, detectors[self.detector], faces=self._faces)
            self._tracker = FaceTracker(recognizer)
        return self._tracker


async def _receive(socket: WebSocket, waiting: "asyncio.Queue[dict[str, Any]]") -> None:
    """Pass messages on until the client disconnects; waits while the queue is full."""
    message: dict[str, Any] = {"type": ""}
    while message["type"] != "websocket.disconnect":
        message = dict(await socket.receive())
        await waiting.put(message)


def _is_too_long(message: Mapping[str, Any]) -> bool:
    return len(message.get("text") or "") > TEXT_CHARACTERS or len(message.get("bytes") or b"") > FRAME_BYTES


def read_frame(tracker: FaceTracker, content: bytes) -> Answer:
    """The readings of a JPEG frame, its size in px, and the milliseconds that reading took."""
    start_s = time.perf_counter()
    try:
        frame = decode(content, "the camera's picture", max_pixels=FRAME_PX)
    except MediaError as error:
        return {"error": str(error)}
    readings = tracker.recognize(frame, time.monotonic())
    spent_ms = 1000 * (time.perf_counter() - start_s)
    answers = [reading.as_dict() for reading in readings]
    return {"readings": answers, "ms": spent_ms, "height": frame.shape[0], "width": frame.shape[1]}


def read_photo(recognizer: Recognizer, model: LoadedModel, content: bytes) -> Answer:
    """The readings of a picture, each with its face and heat map, and the picture itself, scaled down."""
    try:
        frame = decode(content, "the picture")
    except MediaError as error:
        return {"error": str(error)}
    readings = recognizer.recognize(frame)
    answers = [reading.as_dict() for reading in readings]
    boxes = [reading.box for reading in readings]
    faces = to_model_input(to_gray(frame), boxes, margin=recognizer.detector.margin)
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
