"""The model tab: which model is served, which others there are, and what the law says."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr

from champion import ServedModel
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.reporting.templating import code, one_line, prose
from facts import Background, ServedFacts, card_markdown
from fragments import alert, data_table, note, paragraph

REFRESH_S = 5
SHOWN_SCORES = ("val_accuracy", "test_accuracy", "test_macro_f1")
LAW = """The European Union's AI Act (Regulation 2024/1689, article 5(1)(f)) prohibits emotion recognition in workplaces
and schools, except for medical or safety reasons. Inform the people whose faces are read, and ask for their consent."""
CHANGED = "Another model is served now. Open its card again."
NO_VERSIONS = "The registry shows no versions yet. A model that you train appears here within seconds."


class ModelTab:
    """Builds the components in the tab that is open, and connects them.

    A refresh never sets the value of the dropdown: it would undo a person's choice.
    """

    def __init__(self, served_model: ServedModel, page: gr.Blocks) -> None:
        self._served_model = served_model
        self._about = gr.Markdown()
        with gr.Row():
            self._choice = gr.Dropdown([], label="Model to serve", allow_custom_value=True, scale=3, min_width=260)
            self._switch = gr.Button("Switch", variant="primary", scale=0, elem_classes="switch")
        self._status = gr.HTML(padding=False)
        self._versions = gr.HTML(padding=False)
        self._facts = gr.HTML(padding=False)
        self._served_facts, self._listing = ServedFacts(served_model), Background()
        gr.Markdown(LAW)
        with gr.Accordion("Model card of the served model", open=False) as self._card_holder:
            self._card = gr.Markdown()
        self._shown = gr.State({})  # what this page shows, by component
        self._connect(page)

    def _connect(self, page: gr.Blocks) -> None:
        card = [self._card_holder, self._card]
        outputs = [self._about, self._choice, self._versions, self._facts, *card, self._shown]
        page.load(self._current, outputs=self._choice, show_progress="hidden")
        page.load(self._refresh, self._shown, outputs, show_progress="hidden")
        gr.Timer(REFRESH_S).tick(self._refresh, self._shown, outputs, show_progress="hidden")
        switched = self._switch.click(self._switch_model, self._choice, self._status)
        switched.then(self._refresh, self._shown, outputs, show_progress="hidden")
        self._card_holder.expand(self._read_card, outputs=self._card)

    def _current(self) -> Any:
        """The served model as the first choice. Needs no registry, so it comes before a person can choose."""
        return gr.update(value=self._served_model.uri or self._served_model.current.source)

    def _refresh(self, shown: dict[str, Any]) -> tuple[Any, ...]:
        """Update only what has changed."""
        self._listing.ask(self._served_model.versions)
        versions = self._served_model.known_versions
        now = {
            "about": describe(self._served_model),
            "choices": model_choices(self._served_model, versions),
            "versions": version_table(versions),
            "facts": self._served_facts.html(versions),
            "source": self._served_model.current.source,
        }
        changed = {key: shown.get(key) != value for key, value in now.items()}
        is_old_card = bool(shown) and changed["source"]  # of another model: it is read when a person opens it again
        return (
            now["about"] if changed["about"] else gr.skip(),
            gr.update(choices=now["choices"]) if changed["choices"] else gr.skip(),
            now["versions"] if changed["versions"] else gr.skip(),
            now["facts"] if changed["facts"] else gr.skip(),
            gr.update(open=False) if is_old_card else gr.skip(),
            "" if is_old_card else gr.skip(),
            now,
        )

    def _read_card(self) -> str:
        model = self._served_model.current
        try:
            card = card_markdown(model)
        except EmotionDetectionError as error:
            card = f"The model card cannot be read: {code(error)}"
        return card if self._served_model.current.source == model.source else CHANGED

    def _switch_model(self, uri: str | None) -> str:
        served = self._served_model
        try:
            served.switch(uri or "")
        except EmotionDetectionError as error:
            return alert(one_line(error))
        return alert(one_line(served.message)) if served.message else note(f"Now serving {served.current.source}.")


def model_choices(served_model: ServedModel, versions: Sequence[dict[str, str]]) -> list[str]:
    """The aliases, then the versions of each model, that of the served model first."""
    choices: dict[str, list[str]] = {}
    for version in versions:
        choices.setdefault(version.get("model") or served_model.name, [])
    for name, uris in choices.items():
        own = [version for version in versions if (version.get("model") or served_model.name) == name]
        aliases = [alias for version in own for alias in version["aliases"].split(", ") if alias]
        uris += [f"models:/{name}@{alias}" for alias in aliases]
        uris += [f"models:/{name}/{version['version']}" for version in own]
    return [uri for uris in choices.values() for uri in uris]


def version_table(versions: Sequence[dict[str, str]]) -> str:
    """The registered versions as HTML."""
    if not versions:
        return paragraph(NO_VERSIONS)
    cells = [[one_line(value) for value in version.values()] for version in versions]
    return data_table(list(versions[0]), cells, "Registered versions")


def describe(served_model: ServedModel) -> str:
    """The served model in Markdown: name, error message, origin and scores."""
    model = served_model.current
    origin = {
        key: model.tags.get(key) or model.classifier.metadata.get(key) for key in ("dataset", "run_id", "git_commit")
    }
    lines = [
        f"**Serving** {code(model.source)}" + (f" as {code(served_model.uri)}" if served_model.uri else ""),
        prose(served_model.message),
        " · ".join(f"{key.replace('_', ' ')} {code(value)}" for key, value in origin.items() if value),
        " · ".join(f"{key.replace('_', ' ')} **{value:.3f}**" for key, value in read_scores(model.tags).items()),
    ]
    return "\n\n".join(line for line in lines if line)


def read_scores(tags: Mapping[str, str]) -> dict[str, float]:
    """The scores that are shown, as far as the tags have finite numbers."""
    scores = {}
    for key in SHOWN_SCORES:
        with suppress(KeyError, ValueError):
            scores[key] = float(tags[key])
    return {key: value for key, value in scores.items() if math.isfinite(value)}
