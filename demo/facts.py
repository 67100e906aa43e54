"""What is recorded about the served model: origin, evidence of its promotion, history of its alias, and model card."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from champion import LoadedModel, ServedModel
from emotion_detection.inference import pretrained
from emotion_detection.reporting.templating import one_line
from fragments import data_table, paragraph, title

REGISTERED = "models:/"
RETRY_S = 60
WAIT_S = 1.0  # of a page for an answer of the registry; a later answer is shown at the next refresh
NO_EVIDENCE = "No comparison with another version was recorded for this version."
NO_HISTORY = "No move of an alias was recorded for this model."
NO_CARD = "There is no model card: this file is in no registry."


class Background:
    """Asks a registry that may not respond for a minute in a thread, one question at a time."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._thread = threading.Thread()

    def ask(self, question: Callable[[], object]) -> None:
        """Ask, unless the last question still waits for its answer. Returns with the answer, at the latest in WAIT_S.

        question: keeps its answer itself, and raises nothing.
        """
        with self._starting:
            if not self._thread.is_alive():
                self._thread = threading.Thread(target=question, daemon=True, name="facts")
                self._thread.start()
            thread = self._thread
        thread.join(WAIT_S)

    def finish(self, wait_s: float) -> None:
        """Wait for the last answer."""
        self._thread.join(wait_s)


class ServedFacts:
    """The facts as HTML, for all pages. The registry is asked again only if the model or its versions have changed.

    A registry that does not respond holds up no page. It is not asked while it is known to be away, and after a failure
    at most once a minute.
    """

    def __init__(self, served_model: ServedModel, clock: Callable[[], float] = time.monotonic) -> None:
        self._served_model = served_model
        self._clock = clock  # in seconds
        self._background = Background()
        self._key: object = None  # what the registry was last asked for
        self._has_failed = False
        self._retry_at = 0.0
        self._source = ""  # the model that the facts are about
        self._html = ""

    def html(self, versions: object) -> str:
        """The facts of the served model. `versions` is what the page shows of the registry."""
        model = self._served_model.current
        key = (model.source, repr(versions))
        if self._must_ask(model, key):
            self._background.ask(lambda: self._ask(model, key))
        return self._html if self._source == model.source else ""

    def _must_ask(self, model: LoadedModel, key: object) -> bool:
        if model.source.startswith(REGISTERED) and self._served_model.message:
            return False  # the registry is away
        return key != self._key or (self._has_failed and self._clock() >= self._retry_at)

    def _ask(self, model: LoadedModel, key: object) -> None:
        self._key, failed = key, False
        try:
            html = facts_html(model)
        except Exception as error:  # a broken registry must not stop the page
            html, failed = paragraph(f"What is recorded about this model cannot be read: {one_line(error)}"), True
        self._html, self._has_failed, self._retry_at = html, failed, self._clock() + RETRY_S
        self._source = model.source


def facts_html(model: LoadedModel) -> str:
    """Origin, evidence and history of a model, as HTML; "" for a file in no registry.

    Raises an EmotionDetectionError if the registry cannot be read.
    """
    from emotion_detection.experiments import ledger
    from emotion_detection.reporting.model_card import origin_facts  # imports scikit-learn
    from emotion_detection.reporting.sources import read_origin, read_shipped

    source = model.source
    if source == str(pretrained.MODEL):
        return _origin_html(origin_facts(read_shipped()))
    if not source.startswith(REGISTERED):
        return ""
    name = source.removeprefix(REGISTERED).rpartition("/")[0]
    return "".join(
        [
            _origin_html(origin_facts(read_origin(source))),
            title("Evidence"),
            evidence_html(model.tags),
            title("History of the aliases"),
            history_html([entry.as_dict() for entry in ledger.history(name)]),
        ]
    )


def _origin_html(facts: Sequence[tuple[str, str]]) -> str:
    return title("Origin") + data_table(["fact", "value"], facts, "Origin of the served model")


def evidence_html(tags: Mapping[str, str]) -> str:
    """The evidence with which a version was registered and, if there is any, what it did as a challenger, as HTML."""
    from emotion_detection.reporting.evidence import evidence_rows, shadow_rows

    rows, shadow = evidence_rows(tags), shadow_rows(tags)
    html = data_table(["figure", "value"], rows, "Evidence of the promotion") if rows else paragraph(NO_EVIDENCE)
    if shadow:
        html += title("As a challenger") + data_table(["figure", "value"], shadow, "What a service has counted")
    return html


def history_html(moves: Sequence[Mapping[str, Any]]) -> str:
    """The moves of a model's aliases as HTML, the newest first."""
    if not moves:
        return paragraph(NO_HISTORY)
    columns = ["at", "by", "alias", "from", "to", "kind", "why"]
    cells = [
        ["–" if move.get(column) is None else one_line(move[column]) for column in columns] for move in reversed(moves)
    ]
    return data_table(columns, cells, "History of the aliases")


def card_markdown(model: LoadedModel) -> str:
    """The model card of a model. Raises an EmotionDetectionError if the registry cannot be read."""
    from emotion_detection.experiments.store_location import project_folder
    from emotion_detection.reporting.model_card import card_text, find_subject, model_card
    from emotion_detection.reporting.sources import SHIPPED

    source = model.source
    if not source.startswith(REGISTERED):
        if source != str(pretrained.MODEL):
            return NO_CARD
        source = SHIPPED
    return card_text(model_card(find_subject(source, project_folder())))
