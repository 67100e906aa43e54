"""The page with its four tabs. assets/ draws the webcam and photo tabs, Gradio the other two."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Literal

import gradio as gr

from champion import ServedModel
from detectors import LABELS
from emotion_detection.inference.detector import FaceDetector
from emotion_detection.plotting.colors import COLORS
from examples import EXAMPLES
from fair_queue import FairQueue
from model_tab import ModelTab
from video_tab import DELETE_AFTER_S, VideoTab

ASSETS = Path(__file__).with_name("assets")
TITLE = """<div class="page-title"><h1>Emotion detection</h1>
<p>Reads facial expressions. An expression is not a feeling: a picture cannot show what a person feels.</p></div>"""
# White text on the main color, and the main color as text, have a contrast of at least 4.5.
TEAL = gr.themes.Color(
    name="teal",
    c50="#f0fdfa",
    c100="#ccfbf1",
    c200="#99f6e4",
    c300="#5eead4",
    c400="#2dd4bf",
    c500="#0f766e",
    c600="#0f766e",
    c700="#115e59",
    c800="#134e4a",
    c900="#133f3c",
    c950="#042f2e",
)
# System fonts: Gradio's own themes download theirs.
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
THEME = gr.themes.Base(primary_hue=TEAL, secondary_hue=TEAL, neutral_hue="slate", radius_size="lg", **FONTS).set(
    body_text_color_subdued="*neutral_600",
    block_info_text_color="*neutral_600",
    block_label_background_fill="none",
    block_label_background_fill_dark="none",
    block_label_text_color="*body_text_color",
    block_label_text_color_dark="*body_text_color",
    block_title_text_color="*body_text_color",
    block_title_text_color_dark="*body_text_color",
    button_primary_background_fill="*primary_500",
    button_primary_background_fill_dark="*primary_500",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_hover_dark="*primary_700",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
    checkbox_background_color_selected="*primary_500",
    checkbox_background_color_selected_dark="*primary_500",
    checkbox_border_color="*neutral_500",
    link_text_color_dark="*primary_300",
)


def build_page(
    served_model: ServedModel,
    detectors: Mapping[str, FaceDetector],
    *,
    faces: Literal["all", "largest"],
    queue: FairQueue,
    root_path: str = "",
) -> gr.Blocks:
    """The page. detectors: by name, the default first; root_path: the path of a proxy in front of the demo."""
    with gr.Blocks(title="Emotion detection", delete_cache=(60, DELETE_AFTER_S), analytics_enabled=False) as page:
        gr.HTML(TITLE, padding=False)
        with gr.Tabs():
            with gr.Tab("Webcam", render_children=True):
                gr.HTML(_fragment("webcam", detectors, faces), padding=False)
            with gr.Tab("Photo", render_children=True):
                photo = _fragment("photo", detectors, faces, examples=_example_buttons(root_path))
                gr.HTML(photo, padding=False)
            with gr.Tab("Video"):
                VideoTab(served_model, detectors, faces, queue)
            with gr.Tab("Model"):
                ModelTab(served_model, page)
    return page


def _fragment(name: str, detectors: Mapping[str, FaceDetector], faces: str, **values: str) -> str:
    """The HTML of a tab that assets/NAME.js brings to life."""
    detector_names = {detector: LABELS.get(detector, detector) for detector in detectors}
    return Template((ASSETS / f"{name}.html").read_text()).substitute(
        values,
        colors=html.escape(json.dumps(COLORS)),
        faces=_radios(f"{name}-faces", {"all": "all", "largest": "largest only"}, checked=faces),
        detectors=_radios(f"{name}-detector", detector_names, checked=next(iter(detectors))),
    )


def _radios(group: str, labels: Mapping[str, str], *, checked: str) -> str:
    return "".join(
        f'<label><input type="radio" name="{group}" value="{value}"{" checked" * (value == checked)}>'
        f" {html.escape(label)}</label>"
        for value, label in labels.items()
    )


def _example_buttons(root_path: str) -> str:
    return "".join(
        f'<button type="button" data-example="{name}" aria-label="Read the drawing of {description}">'
        f'<img src="{root_path}/examples/{name}.jpg" alt=""></button>'
        for name, description in (
            (name, f"{name} {'person' if len(emotions) == 1 else 'people'}")
            for name, (emotions, *_) in EXAMPLES.items()
        )
    )
