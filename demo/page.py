"""The page with its four tabs. assets/ draws the webcam and photo tabs, Gradio the other two."""

import html
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any, Literal

import gradio as gr

from champion import ServedModel
from emotion_detection.arrays import Frame
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.inference import pretrained
from emotion_detection.inference.annotate import draw
from emotion_detection.inference.detector import FaceDetector
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import open_video
from emotion_detection.inference.reading import Reading
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.inference.table import COLUMNS, Row, rows, table
from emotion_detection.inference.timeline import Timeline
from emotion_detection.inference.video_writer import video_writer
from emotion_detection.plotting.colors import COLORS
from examples import EXAMPLES

ASSETS = Path(__file__).with_name("assets")
DELETE_AFTER_S = 600  # uploaded videos and the files made from them
REFRESH_S = 5  # of the model tab
SHOWN_ROWS = 200
PROGRESS = gr.Progress()  # Gradio passes a progress bar to a function with this default
TITLE = """<div class="page-title"><h1>Emotion detection</h1>
<p>Reads facial expressions. An expression is not a feeling: a picture cannot show what a person feels.</p></div>"""
LAW = """The European Union's AI Act (Regulation 2024/1689, article 5(1)(f)) prohibits emotion recognition in workplaces
and schools, except for medical or safety reasons. Inform the people whose faces are read, and ask for their consent."""
PRIVACY = f"""An uploaded video is kept in a temporary folder of the computer that runs the demo, and is deleted
{DELETE_AFTER_S // 60} minutes later."""

# System fonts: Gradio's own themes download theirs.
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
THEME = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", **FONTS)


def build_page(served_model: ServedModel, detector: FaceDetector, *, faces: Literal["all", "largest"]) -> gr.Blocks:
    with gr.Blocks(title="Emotion detection", delete_cache=(60, DELETE_AFTER_S), analytics_enabled=False) as page:
        gr.HTML(TITLE)
        with gr.Tabs():
            with gr.Tab("Webcam", render_children=True):
                gr.HTML(_fragment("webcam.html"))
            with gr.Tab("Photo", render_children=True):
                gr.HTML(_fragment("photo.html", examples=_example_buttons()))
            with gr.Tab("Video"):
                _video_tab(served_model, detector, faces)
            with gr.Tab("Model"):
                _model_tab(served_model, page)
    return page


def _fragment(name: str, **values: str) -> str:
    return Template((ASSETS / name).read_text()).substitute(colors=html.escape(json.dumps(COLORS)), **values)


def _example_buttons() -> str:
    return "".join(
        f'<button type="button" data-example="{name}"><img src="/examples/{name}.jpg" alt="{name}"></button>'
        for name in EXAMPLES
    )


def _video_tab(served_model: ServedModel, detector: FaceDetector, faces: Literal["all", "largest"]) -> None:
    gr.Markdown(PRIVACY)
    with gr.Row():
        upload = gr.File(label="Video", file_types=["video"], scale=2)
        annotate = gr.Checkbox(label="Also write an annotated copy of the video", value=True, scale=1)
    start = gr.Button("Read the video", variant="primary")
    with gr.Column(visible=False) as results:
        timeline = gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"])
        with gr.Row():
            annotated = gr.Video(show_label=False, interactive=False)
            readings = gr.File(label="All readings (CSV)", interactive=False)
        preview = gr.Dataframe(headers=list(COLUMNS), label=f"First {SHOWN_ROWS} readings", interactive=False)

    kept: list[TemporaryDirectory[str]] = []  # of the last video; Gradio copies what it shows

    def read(path: str | None, write_copy: bool, progress: gr.Progress = PROGRESS) -> tuple[Any, ...]:
        if not path:
            raise gr.Error("Choose a video first.")
        recognizer = Recognizer(served_model.current.classifier, detector, faces=faces)
        while kept:
            kept.pop().cleanup()
        kept.append(TemporaryDirectory(prefix="readings-"))
        outputs = VideoOutputs.in_folder(Path(kept[0].name), annotated=write_copy)
        try:
            first_rows = read_video(Path(path), recognizer, outputs, progress)
        except EmotionDetectionError as error:
            raise gr.Error(str(error), print_exception=False) from error
        files = (str(path) if path else None for path in (outputs.timeline, outputs.annotated, outputs.table))
        return gr.Column(visible=True), *files, _cells(first_rows)

    start.click(read, [upload, annotate], [results, timeline, annotated, readings, preview], concurrency_limit=1)


@dataclass(frozen=True)
class VideoOutputs:
    """The files that are made from a video."""

    timeline: Path
    table: Path
    annotated: Path | None

    @classmethod
    def in_folder(cls, folder: Path, *, annotated: bool) -> "VideoOutputs":
        return cls(folder / "timeline.png", folder / "readings.csv", folder / "annotated.webm" if annotated else None)


def read_video(path: Path, recognizer: Recognizer, outputs: VideoOutputs, progress: Callable[..., Any]) -> list[Row]:
    """Read a video and write the outputs; returns the first rows of the table."""
    tracker, timeline = FaceTracker(recognizer), Timeline()
    first_rows: list[Row] = []
    with (
        open_video(path) as video,
        table(outputs.table) as write_rows,
        _annotated_video(outputs.annotated, video.fps) as write_frame,
    ):
        for number, (time_s, frame) in enumerate(video):
            progress((number, video.frames), desc="Reading", unit="frames")
            readings = tracker.recognize(frame, time_s)
            frame_rows = rows(readings, path.name, frame=number, time_s=time_s)
            write_rows(frame_rows)
            write_frame(time_s, frame, readings)
            timeline.add(frame_rows, until_s=time_s)
            first_rows += frame_rows[: SHOWN_ROWS - len(first_rows)]
    timeline.draw(outputs.timeline)
    return first_rows


@contextmanager
def _annotated_video(
    path: Path | None, fps: float | None
) -> Iterator[Callable[[float, Frame, Sequence[Reading]], None]]:
    """A function that draws the readings of a frame into the video at `path`; without a path it does nothing."""
    if path is None:
        yield lambda *_: None
        return
    with video_writer(path, fps) as writer:
        yield lambda time_s, frame, readings: writer.add(time_s, draw(frame, readings))


def _cells(table_rows: Sequence[Row]) -> list[list[Any]]:
    return [["" if row[column] is None else row[column] for column in COLUMNS] for row in table_rows]


def _model_tab(served_model: ServedModel, page: gr.Blocks) -> None:
    about = gr.Markdown()
    with gr.Row():
        choice = gr.Dropdown(label="Model to serve", choices=[], allow_custom_value=True, scale=3)
        switch = gr.Button("Switch", scale=1)
    registered = gr.Dataframe(label="Registered versions", interactive=False)
    gr.Markdown(LAW)
    with gr.Accordion("Model card of the shipped model", open=False):
        gr.Markdown((pretrained.FOLDER / "README.md").read_text())
    offered = gr.State([])  # the choices that this page shows

    def show() -> tuple[Any, ...]:
        description, _, version_table, choices = refresh(shown=[])
        value = served_model.uri or served_model.current.source
        return description, gr.Dropdown(choices=choices, value=value), version_table, choices

    def refresh(shown: list[str]) -> tuple[Any, ...]:
        """Like show, but leaves the person's choice in the dropdown."""
        versions = served_model.versions()
        choices = model_choices(served_model, versions)
        dropdown = gr.skip() if choices == shown else gr.Dropdown(choices=choices)
        return describe(served_model), dropdown, _version_table(versions), choices

    def switch_model(uri: str, shown: list[str]) -> tuple[Any, ...]:
        try:
            served_model.switch(uri)
        except EmotionDetectionError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return refresh(shown)

    outputs = [about, choice, registered, offered]
    page.load(show, outputs=outputs)
    gr.Timer(REFRESH_S).tick(refresh, offered, outputs, show_progress="hidden")
    switch.click(switch_model, [choice, offered], outputs)


def model_choices(served_model: ServedModel, versions: Sequence[dict[str, str]]) -> list[str]:
    """The aliases, then the versions of the served model."""
    aliases = [alias for version in versions for alias in version["aliases"].split(", ") if alias]
    return [f"models:/{served_model.name}@{alias}" for alias in aliases] + [
        f"models:/{served_model.name}/{version['version']}" for version in versions
    ]


def _version_table(versions: Sequence[dict[str, str]]) -> dict[str, list[Any]] | None:
    if not versions:
        return None
    return {"headers": list(versions[0]), "data": [list(version.values()) for version in versions]}


def describe(served_model: ServedModel) -> str:
    """The served model in Markdown: name, error message, origin and scores."""
    model = served_model.current
    origin = {
        key: model.tags.get(key) or model.classifier.metadata.get(key) for key in ("dataset", "run_id", "git_commit")
    }
    scores = {key: model.tags[key] for key in ("val_accuracy", "test_accuracy", "test_macro_f1") if key in model.tags}
    lines = [
        f"**Serving** `{model.source}`" + (f" as `{served_model.uri}`" if served_model.uri else ""),
        served_model.message,
        " · ".join(f"{key.replace('_', ' ')} `{value}`" for key, value in origin.items() if value),
        " · ".join(f"{key.replace('_', ' ')} **{float(value):.3f}**" for key, value in scores.items()),
    ]
    return "\n\n".join(line for line in lines if line)
