"""Move the alias of a model to another version, and record each move with its reason and its evidence.

Every move is first written to the history (see ledger), where one of several processes wins, and then made. A move that
was interrupted is completed by the next operation, and one that another program has made is entered.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import mlflow

from emotion_detection.config import check_alias
from emotion_detection.errors import StoreError, UsageError, shorten
from emotion_detection.experiments import ledger
from emotion_detection.experiments.ledger import Entry, Ledger, Move
from emotion_detection.experiments.registry import DIGEST, SCORES, Version, model_names, resolve, versions
from emotion_detection.experiments.runs import connect, exclusive_store, translate_errors

EVIDENCE = "evidence"  # a tag of a version: the comparison with the version that had the alias, as JSON
SUMMARY = ("verdict", "opponent", "mcnemar_p")  # what a history shows of it
SECONDS_TO_CORRECT = 1.0  # longer than a process needs to correct an alias that it has set to an old move (see _apply)
BY_PEOPLE = ("promote", ledger.OUTSIDE, "seed")  # kinds of moves that lift a veto


@dataclass(frozen=True)
class Decision:
    """Whether a version may take the alias from its holder, why, and the figures behind it, as plain values."""

    promotes: bool
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Whether a version has the alias, and why."""

    promoted: bool
    reason: str


@dataclass(frozen=True)
class _State:
    """An alias of a model, and its history, which agree."""

    ledger: Ledger
    moves: list[Entry]  # of the alias
    holder: int | None

    @property
    def vetoed(self) -> set[int]:
        """Versions that somebody rolled back and nobody has promoted since."""
        vetoed: set[int | None] = set()
        for entry in self.moves:
            if entry.move.kind == "rollback":
                vetoed.add(entry.move.source)
            elif entry.move.kind in BY_PEOPLE:
                vetoed.discard(entry.move.target)
        return {number for number in vetoed if number is not None}


def promote_if(name: str, number: int, *, alias: str, decide: Callable[[Version | None], Decision]) -> Outcome:
    """Move the alias to a version if `decide` says so for the version that has the alias now (None: there is none).

    The evidence is stored with the version. If another process moves the alias meanwhile, `decide` is asked again. A
    version that was rolled back is not promoted, nor is another version with the same file.
    """
    outcome = Outcome(promoted=False, reason="")

    def choose(state: _State) -> Move | None:
        nonlocal outcome
        if state.holder == number:  # an earlier call has moved the alias
            outcome = Outcome(promoted=True, reason=state.moves[-1].move.why)
            return None
        veto = _veto(name, number, state.vetoed)
        if veto:
            outcome = Outcome(promoted=False, reason=veto)
            return None
        decision = decide(None if state.holder is None else resolve(f"models:/{name}/{state.holder}"))
        _record(name, number, decision.evidence)
        outcome = Outcome(decision.promotes, decision.reason)
        move = Move(alias, state.holder, number, "register", decision.reason, _summary(decision.evidence))
        return move if decision.promotes else None

    _move(name, alias, choose)
    return outcome


def promote(name: str, number: int, *, alias: str, reason: str, kind: str = "promote") -> Entry | None:
    """Move the alias to a version on somebody's word; None if the version has it already.

    Raises StoreError if the registry does not have the version.
    """

    def choose(state: _State) -> Move | None:
        if state.holder == number:
            return None
        evidence = resolve(f"models:/{name}/{number}").tags.get(EVIDENCE, "")
        return Move(alias, state.holder, number, kind, reason, _summary(parse_evidence(evidence)))

    return _move(name, alias, choose)


def rollback(name: str, *, alias: str, reason: str) -> Entry:
    """Move the alias back to the version that had it before, and veto the present one.

    Versions that were rolled back or deleted are passed over. Raises UsageError if there is no earlier one, and
    StoreError if another process moves the alias meanwhile: the reason is about the version that had it.
    """
    first: _State | None = None

    def choose(state: _State) -> Move:
        nonlocal first
        first = first or state
        if state.holder != first.holder:
            raise StoreError(
                f"{alias} of {name} has moved from version {first.holder} to version {state.holder} meanwhile: look at "
                f"`emotion-detection history {name}`, then repeat the command if version {state.holder} is wrong too"
            )
        former = _former(name, state)
        if former is None:
            raise UsageError(
                f"{name} has no earlier {alias}: name a version with "
                f"`emotion-detection promote models:/{name}/N --reason TEXT`"
            )
        return Move(alias, state.holder, former, "rollback", reason)

    entry = _move(name, alias, choose)
    assert entry is not None  # `choose` always returns a move
    return entry


def history(name: str) -> list[Entry]:
    """All moves of the aliases of a model, oldest first. Writes nothing.

    A move that another program has made since the last entry comes last, with the number 0: the next operation enters
    it. Raises StoreError if the registry does not have the model.
    """
    connect()
    present = _aliases(name)
    entries = ledger.history(name)
    recorded = {entry.move.alias: entry.move.target for entry in entries if entry.move.alias}
    missing = (
        Move(alias, recorded.get(alias), present.get(alias), ledger.OUTSIDE, _outside(alias, alias in recorded))
        for alias in sorted({*recorded, *present})
        if recorded.get(alias) != present.get(alias)
    )
    return [*entries, *(Entry(0, datetime.now(timezone.utc), ledger.UNKNOWN, move) for move in missing)]


def default_model(usual: str) -> str:
    """The model that a command uses if none is named: the only one in the registry, or else the usual one."""
    names = model_names()
    return names[0] if len(names) == 1 else usual


def parse_evidence(text: str) -> dict[str, Any]:
    """The figures in a version's tag `evidence`; empty for an older version without them."""
    try:
        evidence = json.loads(text or "{}")
    except ValueError:
        return {}
    return evidence if isinstance(evidence, dict) else {}


def _move(name: str, alias: str, choose: Callable[[_State], Move | None]) -> Entry | None:
    """Make the move that `choose` returns for the present state; if another process is faster, choose again."""
    _check_alias(alias)
    connect()
    with exclusive_store():
        _aliases(name)  # a history is not begun for a model that does not exist
        while True:
            state = _settle(name, alias)
            move = choose(state)
            if move is None:
                return None
            entry = ledger.append(state.ledger, move)
            if entry is not None:
                _apply(name, state.ledger, entry)
                return entry


def _check_alias(alias: str) -> None:
    """Raise UsageError for an alias that MLflow refuses: its move would be entered, but could never be made."""
    try:
        check_alias(alias)
    except ValueError as error:
        raise UsageError(f"{shorten(alias)} {error}") from error


@translate_errors()
def _settle(name: str, alias: str) -> _State:
    """The state of an alias, after interrupted moves were completed and moves of other programs entered.

    An alias that differs from its history is read again after SECONDS_TO_CORRECT: a process that has slept may just be
    correcting it.
    """
    seen = None
    while True:
        # The alias is read after the history: a move in between is then noticed when the next entry is written.
        history = ledger.read(name)
        if history.applied < len(history.entries):
            _apply(name, history, history.entries[-1])
            continue
        present, moves = _aliases(name).get(alias), history.of(alias)
        recorded = moves[-1].move.target if moves else None
        if present == recorded:
            return _State(history, moves, present)
        if seen != (len(history.entries), present):
            seen = len(history.entries), present
            time.sleep(SECONDS_TO_CORRECT)
            continue
        move = Move(alias, recorded, present, ledger.OUTSIDE, _outside(alias, bool(moves)))
        entry = ledger.append(history, move)
        if entry is not None:
            ledger.mark_applied(history, entry.number)


@translate_errors()
def _apply(name: str, history: Ledger, entry: Entry) -> None:
    """Move the alias as the entry says. If another process has entered a later move of it meanwhile, make that one.

    A process that has slept must neither leave its old move in place nor set back the number of moves made.
    """
    while True:
        _set_alias(name, entry.move)
        latest = ledger.read(name)
        newest = latest.of(entry.move.alias)[-1]
        if newest.number == entry.number:
            break
        entry = newest
    if entry.number > latest.applied:
        ledger.mark_applied(history, entry.number)


def _set_alias(name: str, move: Move) -> None:
    client = mlflow.MlflowClient()
    if move.target not in _existing(name):  # None, or deleted since: the alias is then entered as it is
        return
    ledger.upsert(lambda: client.set_registered_model_alias(name, move.alias, str(move.target)))
    holders = " ".join(_describe(name, alias, number) for alias, number in sorted(_aliases(name).items()))
    client.update_registered_model(
        name, f"{holders} Answers the probability of each emotion for faces of 48x48 pixels."
    )


def _describe(name: str, alias: str, number: int) -> str:
    tags = mlflow.MlflowClient().get_model_version(name, str(number)).tags
    scores = "".join(f", {key} {float(tags[key]):.4f}" for key in SCORES if key in tags)
    return f"{alias}: version {number}{scores}."


def _outside(alias: str, recorded: bool) -> str:
    return "moved outside of this project" if recorded else f"was the {alias} before this history began"


@translate_errors()
def _aliases(name: str) -> dict[str, int]:
    """The aliases of a model, with the numbers of their versions. Raises StoreError if there is no such model."""
    # MLflow's filters have no escape for a quote.
    found = mlflow.MlflowClient().search_registered_models(f"name = '{name}'") if "'" not in name else []
    if not found:
        known = ", ".join(model_names()) or "no models, and `dvc repro` registers one"
        raise StoreError(f"the registry does not contain {shorten(name)}: it contains {shorten(known)}")
    return {alias: int(number) for model in found for alias, number in model.aliases.items()}


def _existing(name: str) -> dict[int, str | None]:
    """The versions of a model, with the SHA-256 of their files; None if it is not recorded."""
    return {version.number: version.tags.get(DIGEST) for version in versions(name)}


def _veto(name: str, number: int, vetoed: set[int]) -> str:
    """Why a version must not be promoted by itself; "" if it may."""
    digests = _existing(name) if vetoed else {}
    digest = digests.get(number)
    same = [other for other in sorted(vetoed) if other == number or (digest and digests.get(other) == digest)]
    if not same:
        return ""
    what = "it" if number in same else f"version {same[0]}, which has the same file,"
    return f"{what} was rolled back: `emotion-detection promote models:/{name}/{number} --reason TEXT` lifts this"


def _former(name: str, state: _State) -> int | None:
    passed_over = {None, state.holder, *state.vetoed}
    existing = _existing(name)
    targets = (entry.move.target for entry in reversed(state.moves))
    return next((target for target in targets if target not in passed_over and target in existing), None)


@translate_errors()
def _record(name: str, number: int, evidence: Mapping[str, Any]) -> None:
    """Store the evidence as a tag of the version and as evidence.json of its run."""
    client = mlflow.MlflowClient()
    text = json.dumps(evidence, separators=(",", ":"))
    client.set_model_version_tag(name, str(number), EVIDENCE, text)
    run_id = client.get_model_version(name, str(number)).run_id
    if run_id:
        client.log_dict(run_id, dict(evidence), "evidence.json")


def _summary(evidence: Mapping[str, Any]) -> dict[str, Any]:
    return {key: evidence[key] for key in SUMMARY if key in evidence}
