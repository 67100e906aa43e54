"""The video tab: upload a video, watch the progress, cancel, and get the results."""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

import gradio as gr

from champion import ServedModel
from detectors import LABELS
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.inference.detector import FaceDetector
from emotion_detection.inference.recognizer import Recognizer
from fair_queue import Client, FairQueue
from fragments import alert, data_table, note, picture
from videos import SHOWN_ROWS, VideoOutputs, VideoReport, read_video

DELETE_AFTER_S = 600  # uploaded videos and the files made from them
PROGRESS_S = 0.5  # how often the progress is shown
SHOWN_COLUMNS = ("frame", "time_s", "track", "emotion", "confidence", "unsure")
PRIVACY = f"""<p class="note">An uploaded video is kept in a temporary folder of the computer that runs the demo, and is
deleted {DELETE_AFTER_S // 60} minutes later.</p>"""
# On a phone the results are below the controls.
SHOW_RESULTS = """() => {
  if (matchMedia("(max-width: 860px)").matches) document.getElementById("video-results")?.scrollIntoView();
}"""

Updates = dict[Any, Any]  # component -> its new value


class VideoTab:
    """Builds the components in the tab that is open, and connects them."""

    def __init__(
        self,
        served_model: ServedModel,
        detectors: Mapping[str, FaceDetector],
        faces: Literal["all", "largest"],
        queue: FairQueue,
    ) -> None:
        self._served_model, self._detectors, self._faces, self._queue = served_model, detectors, faces, queue
        self._canceled: set[str] = set()  # sessions
        with gr.Row(elem_classes="video-columns"):
            with gr.Column(scale=2, min_width=290):
                inputs = self._inputs()
            with gr.Column(scale=3, min_width=290, visible=False, elem_id="video-results") as self._results:
                self._outputs()
        self._connect(inputs)

    def _inputs(self) -> list[Any]:
        upload = gr.File(label="Video", file_types=["video"], height=130)
        choices = [(LABELS.get(name, name), name) for name in self._detectors]
        detector = gr.Radio(choices, value=choices[0][1], label="Face detector")
        annotate = gr.Checkbox(label="Also write an annotated copy of the video", value=True)
        with gr.Row():
            self._start = gr.Button("Read the video", variant="primary")
            self._cancel = gr.Button("Cancel", variant="stop", visible=False)
        self._status = gr.HTML(padding=False)
        gr.HTML(PRIVACY, padding=False)
        return [upload, annotate, detector]

    def _outputs(self) -> None:
        self._summary = gr.HTML(padding=False)
        self._annotated = gr.Video(label="Annotated copy", interactive=False, height=250)
        self._timeline = gr.HTML(padding=False)  # gr.Image puts the picture into a button without a name
        self._readings = gr.DownloadButton("Save all readings (CSV)", variant="secondary")
        with gr.Accordion(f"First {SHOWN_ROWS} readings", open=False):
            self._preview = gr.HTML(padding=False)

    def _connect(self, inputs: list[Any]) -> None:
        shown = [self._results, self._summary, self._annotated, self._timeline, self._readings, self._preview]
        controls = [self._status, self._start, self._cancel]
        reading = self._start.click(
            self._read, inputs, [*controls, *shown], concurrency_limit=1, show_progress="hidden"
        )
        reading.then(None, js=SHOW_RESULTS)
        # Gradio's own cancellation could show one more step of the progress after the message.
        self._cancel.click(self._ask_to_cancel, outputs=self._cancel, show_progress="hidden")

    def _ask_to_cancel(self, request: gr.Request) -> Any:
        self._canceled.add(request.session_hash or "")
        return gr.Button(interactive=False)

    def _read(self, path: str | None, write_copy: bool, detector: str, request: gr.Request) -> Iterator[Updates]:
        if not path:
            yield {self._status: alert("Choose a video first.")}
            return
        yield {
            self._status: note("Opening the video…"),
            self._results: gr.Column(visible=False),
            **self._buttons(reading=True),
        }
        client, session = Client(request.client.host if request.client else "", "videos"), request.session_hash or ""
        self._canceled.discard(session)
        try:
            recognizer = Recognizer(self._served_model.current.classifier, self._detectors[detector], faces=self._faces)
            with unfinished_folder() as (folder, keep):
                outputs = VideoOutputs.in_folder(folder, annotated=write_copy)
                with closing(self._queue.steps(client, read_video(Path(path), recognizer, outputs))) as steps:
                    for report in calm(steps):
                        if session in self._canceled and not report.finished:
                            break
                        if report.finished:
                            keep()
                        yield self._result(report, outputs) if report.finished else {self._status: progress_bar(report)}
        except EmotionDetectionError as error:
            message = str(error).replace(path, Path(path).name)
            yield {self._status: alert(message), **self._buttons(reading=False)}
            return
        if not report.finished:
            yield {self._status: note("Canceled. Nothing was kept."), **self._buttons(reading=False)}

    def _result(self, report: VideoReport, outputs: VideoOutputs) -> Updates:
        return {
            self._status: alert(report.warning) if report.warning else note("Finished."),
            self._results: gr.Column(visible=True),
            self._summary: summary(report),
            self._annotated: gr.Video(outputs.annotated and str(outputs.annotated), visible=bool(outputs.annotated)),
            self._timeline: picture(outputs.timeline, "timeline.png", "The emotion of each person over time"),
            self._readings: str(outputs.table),
            self._preview: preview(report),
            **self._buttons(reading=False),
        }

    def _buttons(self, *, reading: bool) -> Updates:
        return {
            self._start: gr.Button(interactive=not reading),
            self._cancel: gr.Button(visible=reading, interactive=True),
        }


@contextmanager
def unfinished_folder() -> Iterator[tuple[Path, Callable[[], object]]]:
    """A temporary folder, and a function that keeps it; without this call it is deleted, also after a cancellation.

    Gradio serves the results from it. What is kept is deleted after DELETE_AFTER_S.
    """
    with ExitStack() as cleanup:
        folder = Path(mkdtemp(prefix="readings-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder, cleanup.pop_all


def calm(reports: Iterable[VideoReport]) -> Iterator[VideoReport]:
    """The first report, then one every PROGRESS_S, and the last."""
    shown_s = float("-inf")
    for report in reports:
        if report.finished or time.monotonic() - shown_s >= PROGRESS_S:
            shown_s = time.monotonic()
            yield report


def progress_bar(report: VideoReport) -> str:
    """The number of frames, the rate and the remaining time."""
    spent_s = max(time.monotonic() - report.started_s, 1e-3)
    rate = report.frames / spent_s
    place = f' value="{report.frames}" max="{report.total}"' if report.total else ""
    of = f" of {report.total:,}" if report.total else ""
    left_s = max(report.total - report.frames, 0) / rate if report.total else 0
    left = f" · {left_s:.0f} s left" if report.total else ""
    text = f"{report.frames:,}{of} frames · {rate:.0f} frames/s{left}"
    return f'<div class="progress"><progress aria-label="Frames read"{place}></progress><p>{text}</p></div>'


def summary(report: VideoReport) -> str:
    """How often each emotion was read, in total and for each person."""
    first, *people = report.tally.summary(report.frames, "frame")
    return "".join([note(first), *(f'<p class="note">{person.strip()}</p>' for person in people)])


def preview(report: VideoReport) -> str:
    """The first readings as a table."""
    cells = [[row[column] for column in SHOWN_COLUMNS] for row in report.first_rows]
    return data_table(SHOWN_COLUMNS, cells, "The first readings of the video")
