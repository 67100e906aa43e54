"""The page: four tabs. The camera and photos are drawn by assets/live.js, the rest is Gradio's."""

import html
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from emotion_detection.errors import InputError
from emotion_detection.inference import pretrained
from emotion_detection.inference.annotate import draw
from emotion_detection.inference.detector import FaceDetector
from emotion_detection.inference.face_tracker import FaceTracker
from emotion_detection.inference.media import open_video
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.inference.table import COLUMNS, rows, table
from emotion_detection.inference.timeline import Timeline
from emotion_detection.inference.video_writer import video_writer
from emotion_detection.plotting.colors import COLORS
from examples import EXAMPLES
from serving import Serving

ASSETS = Path(__file__).with_name("assets")
FORGET_S = 600  # uploaded videos and what was made of them
SHOWN_ROWS = 200
PROGRESS = gr.Progress()  # as a default it tells Gradio to hand in a bar
HERO = """<div class="hero"><h1>Emotion detection</h1>
<p>Reads the expressions of faces. Expressions, not feelings: nobody can see those in a picture.</p></div>"""
LAW = """The European Union's AI Act (Regulation 2024/1689, article 5(1)(f)) forbids reading emotions at work and in
schools. Tell the people whose faces are read, and ask them first."""

# System fonts: Gradio's own themes fetch theirs from the web.
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
THEME = gr.themes.Soft(primary_hue="teal", neutral_hue="slate", **FONTS)


def build(serving: Serving, detector: FaceDetector, *, faces: str) -> gr.Blocks:
    with gr.Blocks(title="Emotion detection", delete_cache=(60, FORGET_S), analytics_enabled=False) as page:
        gr.HTML(HERO)
        with gr.Tabs():
            with gr.Tab("Webcam", render_children=True):
                gr.HTML(_fragment("live.html"))
            with gr.Tab("Photo", render_children=True):
                gr.HTML(_fragment("photo.html", examples=_examples()))
            with gr.Tab("Video"):
                _video_tab(serving, detector, faces)
            with gr.Tab("Model"):
                _model_tab(serving, page)
    return page


def _fragment(name: str, **values: str) -> str:
    return Template((ASSETS / name).read_text()).substitute(colors=html.escape(json.dumps(COLORS)), **values)


def _examples() -> str:
    buttons = (
        f'<button type="button" data-example="{name}"><img src="/examples/{name}.jpg" alt="{name}"></button>'
        for name in EXAMPLES
    )
    return "".join(buttons)


def _video_tab(serving: Serving, detector: FaceDetector, faces: str) -> None:
    gr.Markdown(
        "An uploaded video lies in a temporary folder of this computer while it is read, and is deleted "
        f"{FORGET_S // 60} minutes later."
    )
    with gr.Row():
        given = gr.File(label="a video", file_types=["video"], scale=2)
        annotated = gr.Checkbox(label="draw the readings into a copy of the video", value=True, scale=1)
    start = gr.Button("Read the video", variant="primary")
    with gr.Column(visible=False) as results:
        figure = gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"])
        with gr.Row():
            movie = gr.Video(show_label=False, interactive=False)
            files = gr.File(label="every reading, as a table", interactive=False)
        shown = gr.Dataframe(headers=list(COLUMNS), label=f"the first {SHOWN_ROWS} readings", interactive=False)

    kept: list[TemporaryDirectory[str]] = []  # of the last video; Gradio has copied what it shows

    def read(path: str | None, draw_too: bool, progress: gr.Progress = PROGRESS) -> tuple[Any, ...]:
        if not path:
            raise gr.Error("Choose a video first.")
        recognizer = Recognizer(serving.model.classifier, detector, faces="largest" if faces == "largest" else "all")
        while kept:
            kept.pop().cleanup()
        kept.append(TemporaryDirectory(prefix="readings-"))
        outputs = Outputs(Path(kept[0].name), draw_too=draw_too)
        try:
            return gr.Column(visible=True), *read_video(Path(path), recognizer, outputs, progress)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    start.click(read, [given, annotated], [results, figure, movie, files, shown], concurrency_limit=1)


class Outputs:
    """The files that a video becomes."""

    def __init__(self, folder: Path, *, draw_too: bool) -> None:
        self.figure, self.table = folder / "timeline.png", folder / "readings.csv"
        self.movie = folder / "annotated.webm" if draw_too else None


def read_video(path: Path, recognizer: Recognizer, outputs: Outputs, progress: Any) -> tuple[Any, ...]:
    """Write the outputs of a video; returns figure, movie or None, table, and the table's first rows."""
    follower, timeline = FaceTracker(recognizer), Timeline()
    first: list[Any] = []
    with open_video(path) as video, table(outputs.table) as write, _film(outputs.movie, video.fps) as add:
        for number, (at_s, frame) in enumerate(video):
            progress((number, video.frames), desc="reading", unit="frames")
            readings = follower.recognize(frame, at_s)
            listed = rows(readings, path.name, frame=number, time_s=at_s)
            write(listed)
            timeline.add(listed, until_s=at_s)
            first += listed[: SHOWN_ROWS - len(first)]
            add(at_s, frame, readings)
    timeline.draw(outputs.figure)
    cells = [["" if row[column] is None else row[column] for column in COLUMNS] for row in first]
    return str(outputs.figure), str(outputs.movie) if outputs.movie else None, str(outputs.table), cells


@contextmanager
def _film(path: Path | None, fps: float | None) -> Iterator[Any]:
    """A function that draws a frame's readings and adds it to the film; does nothing without a path."""
    if path is None:
        yield lambda *_: None
        return
    with video_writer(path, fps) as movie:
        yield lambda at_s, frame, readings: movie.add(at_s, draw(frame, readings))


def _model_tab(serving: Serving, page: gr.Blocks) -> None:
    about = gr.Markdown()
    with gr.Row():
        choice = gr.Dropdown(label="serve", choices=[], allow_custom_value=True, scale=3)
        switch = gr.Button("Switch", scale=1)
    registered = gr.Dataframe(label="registered versions", interactive=False)
    gr.Markdown(LAW)
    with gr.Accordion("Model card of the model that ships", open=False):
        gr.Markdown((pretrained.FOLDER / "README.md").read_text())

    def look() -> tuple[Any, ...]:
        versions = serving.versions()
        name = str(serving.uri).removeprefix("models:/").partition("@")[0].partition("/")[0]
        aliases = [f"models:/{name}@{alias}" for one in versions for alias in one["aliases"].split(", ") if alias]
        choices = aliases + [f"models:/{name}/{one['version']}" for one in versions]
        cells = {"headers": list(versions[0]), "data": [list(one.values()) for one in versions]} if versions else None
        return describe(serving), gr.Dropdown(choices=choices, value=serving.uri or serving.model.source), cells

    def change(uri: str) -> tuple[Any, ...]:
        if not uri.startswith("models:/"):
            raise gr.Error("Only models of the registry can be chosen here: models:/name@alias or models:/name/number.")
        serving.use(uri)
        return look()

    outputs = [about, choice, registered]
    page.load(look, outputs=outputs)
    gr.Timer(5).tick(look, outputs=outputs, show_progress="hidden")
    switch.click(change, choice, outputs)


def describe(serving: Serving) -> str:
    """What serves now, as Markdown."""
    model = serving.model
    told = {key: model.tags.get(key) or model.classifier.about.get(key) for key in ("dataset", "run_id", "git_commit")}
    scores = {key: model.tags[key] for key in ("val_accuracy", "test_accuracy", "test_macro_f1") if key in model.tags}
    lines = [f"**Serving** `{model.source}`" + (f" as `{serving.uri}`" if serving.uri else "")]
    lines += [f"{serving.message}"] if serving.message else []
    lines += [" · ".join(f"{key.replace('_', ' ')} `{value}`" for key, value in told.items() if value)]
    lines += [" · ".join(f"{key.replace('_', ' ')} **{float(value):.3f}**" for key, value in scores.items())]
    return "\n\n".join(line for line in lines if line)
