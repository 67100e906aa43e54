"""What is recorded about the served model: origin, evidence of its promotion, history of its alias, and model card."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from champion import ServedModel
from emotion_detection.errors import EmotionDetectionError
from emotion_detection.inference import pretrained
from fragments import data_table, paragraph, title

REGISTERED = "models:/"
NO_EVIDENCE = "No comparison with another version was recorded for this version."
NO_HISTORY = "No move of an alias was recorded for this model."
NO_CARD = "There is no model card: this file is in no registry."


class ServedFacts:
    """The facts as HTML, for all pages. The registry is asked again only if the model or its versions have changed."""

    def __init__(self, served_model: ServedModel) -> None:
        self._served_model = served_model
        self._reading = threading.Lock()
        self._key: object = None
        self._html = ""

    def html(self, versions: object) -> str:
        """The facts of the served model. `versions` is what the page shows of the registry."""
        key = (self._served_model.current.source, repr(versions))
        if key != self._key and self._reading.acquire(blocking=False):  # other pages show the last facts meanwhile
            try:
                self._html = facts_html(self._served_model)
                self._key = key
            except EmotionDetectionError as error:
                self._html = paragraph(f"What is recorded about this model cannot be read: {error}")
            finally:
                self._reading.release()
        return self._html


def facts_html(served_model: ServedModel) -> str:
    """Origin, evidence and history of the served model, as HTML; "" for a file in no registry.

    Raises an EmotionDetectionError if the registry cannot be read.
    """
    from emotion_detection.experiments import ledger
    from emotion_detection.reporting.model_card import origin_facts  # imports scikit-learn
    from emotion_detection.reporting.sources import read_origin, read_shipped

    source = served_model.current.source
    if source == str(pretrained.MODEL):
        return _origin_html(origin_facts(read_shipped()))
    if not source.startswith(REGISTERED):
        return ""
    name = source.removeprefix(REGISTERED).rpartition("/")[0]
    return "".join(
        [
            _origin_html(origin_facts(read_origin(source))),
            title("Evidence"),
            evidence_html(served_model.current.tags),
            title("History of the aliases"),
            history_html([entry.as_dict() for entry in ledger.history(name)]),
        ]
    )


def _origin_html(facts: Sequence[tuple[str, str]]) -> str:
    return title("Origin") + data_table(["fact", "value"], facts, "Origin of the served model")


def evidence_html(tags: Mapping[str, str]) -> str:
    """The evidence with which a version was registered, as HTML."""
    from emotion_detection.reporting.evidence import evidence_rows

    rows = evidence_rows(tags)
    return data_table(["figure", "value"], rows, "Evidence of the promotion") if rows else paragraph(NO_EVIDENCE)


def history_html(moves: Sequence[Mapping[str, Any]]) -> str:
    """The moves of a model's aliases as HTML, the newest first."""
    if not moves:
        return paragraph(NO_HISTORY)
    columns = ["at", "by", "alias", "from", "to", "kind", "why"]
    cells = [["–" if move.get(column) is None else move[column] for column in columns] for move in reversed(moves)]
    return data_table(columns, cells, "History of the aliases")


def card_markdown(served_model: ServedModel) -> str:
    """The model card of the served model. Raises an EmotionDetectionError if the registry cannot be read."""
    from emotion_detection.experiments.store_location import project_folder
    from emotion_detection.reporting.model_card import card_text, find_subject, model_card
    from emotion_detection.reporting.sources import SHIPPED

    source = served_model.current.source
    if not source.startswith(REGISTERED):
        if source != str(pretrained.MODEL):
            return NO_CARD
        source = SHIPPED
    return card_text(model_card(find_subject(source, project_folder())))
