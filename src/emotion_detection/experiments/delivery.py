"""Runs that a dead store does not stop: what it misses is kept in a journal and delivered exactly once.

A run has an ID of its own from the beginning, as a tag. It is searched before the run is created, so that a delivery
which is killed at any moment and repeated makes no second run.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import mlflow
from mlflow.tracking.context.registry import resolve_tags

from emotion_detection.errors import StoreError, shorten
from emotion_detection.experiments import calls
from emotion_detection.experiments.calls import Call
from emotion_detection.experiments.journal import (
    FILES,
    RECORDS,
    WAIT_S,
    BusyError,
    Journal,
    Line,
    exclusive_delivery,
    journal_of,
    journals,
    writable,
)
from emotion_detection.experiments.outages import JournalError, OutageError, bounded, variables
from emotion_detection.experiments.runs import (
    EPOCH_TIMEOUT_S,
    EXPERIMENT,
    PROCESS,
    QUIET,
    Breaker,
    Run,
    begin,
    connect,
    new_tags,
    permitted,
    project_experiment,
    run_exists,
    translate_errors,
)
from emotion_detection.experiments.store_location import store_uri
from emotion_detection.redaction import redact_uri, scrub

LOCAL_ID = "local_run_id"  # the tag with the ID that a stage has chosen before the store had the run
COMMAND = "`emotion-detection sync`"
LOST_S = 25  # after this time in failed calls, a stage leaves the store alone: a pipeline loses less than a minute
MAX_BATCH = 50  # epochs in one request
UNSENDABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # from a damaged call

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """What a store has got of a journal."""

    journal: Journal
    run_id: str  # in the store; "" if nothing could be delivered
    epochs: int = 0
    files: int = 0
    error: str = ""  # why something is left
    outage: OutageError | None = None  # if the same request may succeed later


class Outbox:
    """Sends the calls of a run to the store, or keeps them in the journal until the store takes them.

    stored_id: the ID of the run in the store; "" if it is not known. lock: closed after the run.
    """

    def __init__(self, journal: Journal, lock: ExitStack) -> None:
        self.journal, self.stored_id = journal, ""
        self.breaker = Breaker(LOST_S)
        self._lock = lock
        self._waits = False  # whether the journal has calls
        self._warned = False

    def send(self, call: Call) -> None:
        """Send a call to the store, or keep it. Raises StoreError if the store refuses it for good."""
        if not self._waits and self.breaker.allows and self.stored_id:
            try:
                with self.breaker.attempt(), translate_errors():
                    calls.send(self.stored_id, call)
            except OutageError as error:
                self.warn(error)
            else:
                return
        self._keep(call)
        self._flush()

    def warn(self, error: StoreError) -> None:
        """Say once what happens to the calls."""
        if not self._warned:
            outage = error if isinstance(error, OutageError) else OutageError("", shorten(error))
            other = self.journal.exists and not self.journal.is_for_present_store
            logger.warning(
                "%s. The stage continues, and what %s misses is kept in %s. %s delivers it when %s.",
                outage.sentence,
                self.journal.store if other else redact_uri(store_uri()),
                self.journal.folder,
                COMMAND,
                "MLFLOW_TRACKING_URI is this address" if other else outage.until,
            )
        self._warned = True

    def _keep(self, call: Call) -> None:
        if not self._waits:
            self.journal = self._lock.enter_context(writable(self.journal.run_id))
        self._waits = True
        keep(self.journal, call)

    def _flush(self) -> None:
        """Deliver the journal if the store may be asked now. A failure leaves it for later."""
        if not self.breaker.allows or not self.journal.is_for_present_store:
            return
        if any(one.run_id == self.journal.run_id and one.started < self.journal.started for one in journals()):
            return  # in the order of the calls
        try:
            with self.breaker.attempt():
                self.stored_id = deliver(self.journal).run_id
        except StoreError as error:
            self.warn(error)
            return
        _remove_if_done(self.journal)
        self._waits = False
        logger.info("MLflow responds again, and has got what it missed.")


@contextmanager
def stage_run(
    run_id: str, *, name: str | None = None, tags: Mapping[str, str] | None = None, create: bool = False
) -> Iterator[Run]:
    """Resume a run as `start_run` does, with a store that may be dead: it costs only a warning, and little time.

    Journals that wait for the store are delivered first. What the store misses meanwhile is kept in the journal of the
    run. run_id: the ID in the store or that of an earlier call of this function. create: start a new run if there is
    none; if the store does not respond, its ID remains `run_id`. Raises StoreError if a store that responds does not
    have the run, or for a wrong setting.
    """
    with ExitStack() as lock:
        run = _begin(run_id, name, tags or {}, create, lock)
        try:
            yield run
        except BaseException as error:
            with suppress(StoreError):  # the first error is the one to report
                reason = scrub(shorten(f"{type(error).__name__}: {error}", 500))
                run.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", reason)
            raise
        end = partial(run.end, "FINISHED")
        run.attempt(end) if run.lagging else end()


def _begin(run_id: str, name: str | None, tags: Mapping[str, str], create: bool, lock: ExitStack) -> Run:
    attached = os.environ.get("MLFLOW_RUN_ID", "") if create else ""  # the run of `mlflow run`
    outbox = Outbox(journal_of(run_id), lock)
    all_tags = dict(tags) | ({LOCAL_ID: run_id} if create else {})
    try:
        with outbox.breaker.attempt():
            active = _begin_in_store(outbox.journal, name, all_tags, create)
    except OutageError as error:
        outbox.journal = journal_of(attached or run_id)
        outbox.warn(error)
        content = {"name": name, "create": create and not attached, "tags": _first_tags(name, all_tags, create)}
    else:
        outbox.stored_id = active.info.run_id
        outbox.journal = journal_of(active.info.run_id)
        content = {"tags": new_tags(active.data.tags, all_tags)}
    outbox.send(Call("start", content))
    return Run(outbox.stored_id or outbox.journal.run_id, outbox)


def _begin_in_store(journal: Journal, name: str | None, tags: dict[str, str], create: bool) -> mlflow.ActiveRun:
    """Start or resume the run in a store that has got all that it missed. Raises OutageError if it does not respond."""
    if journal.exists and not journal.is_for_present_store:
        raise OutageError("", f"the run waits for {journal.store}, and MLFLOW_TRACKING_URI is another store")
    catch_up(journal.run_id)
    stored_id = locate(journal.run_id)
    ids = {LOCAL_ID: tags[LOCAL_ID]} if create else {}
    return begin(stored_id if create else stored_id or journal.run_id, name=name, tags=ids)


def catch_up(run_id: str) -> None:
    """Let the store have what it has missed.

    Raises OutageError if it does not respond, or cannot take what it has missed of this run.
    """
    check_store()
    outages: list[OutageError] = []
    try:
        for delivery in deliver_waiting(WAIT_S):
            outages += [delivery.outage] if delivery.outage and delivery.journal.run_id == run_id else []
            if delivery.error:
                logger.warning("%s", delivery.error)
            else:
                logger.info("MLflow has got what it missed of the run %s.", delivery.run_id)
    except BusyError as error:
        raise OutageError(str(error), "another process still delivers what it missed") from error
    if outages:
        raise outages[0]


def _first_tags(name: str | None, tags: Mapping[str, str], create: bool) -> dict[str, str]:
    """The tags of a run that begins without the store. A new one also gets those of MLflow, such as the user."""
    named = {"mlflow.runName": name} if name else {}
    return new_tags({}, {**(resolve_tags(named) if create else {}), **tags})


@translate_errors()
def check_store() -> None:
    """Ask the store for something small. Raises OutageError if it does not respond."""
    connect()
    with bounded(EPOCH_TIMEOUT_S):
        mlflow.MlflowClient().search_experiments(max_results=1)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow from printing addresses and progress, and this module from repeating what `sync` prints."""
    levels = {logging.getLogger("mlflow"): logging.WARNING, logger: logging.ERROR}
    former = {one: one.level for one in levels}
    for one, level in levels.items():
        one.setLevel(level)
    try:
        with variables({QUIET: "true"}):
            yield
    finally:
        for one, level in former.items():
            one.setLevel(level)


def keep(journal: Journal, call: Call) -> None:
    """Add a call to a journal, with copies of its artifacts."""
    copy = partial(shutil.copytree, call.folder, dirs_exist_ok=True) if call.folder else None
    journal.add(call.kind, call.at, call.content, copy)


def locate(run_id: str) -> str | None:
    """The ID in the store of the run that a stage knows by this ID; None if the store does not have it.

    If the store has created the run although its answer was lost, and later another one, the one with a process counts.
    """
    if run_exists(run_id):
        return run_id
    found = _find(run_id)
    return str(found[0].info.run_id) if found else None


@translate_errors()
def _find(local_id: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id], f"tags.{LOCAL_ID} = '{local_id}'")
    return sorted(found, key=lambda run: (PROCESS not in run.data.tags, run.info.start_time))


def deliver(journal: Journal) -> Delivery:
    """Send the calls of a journal to the store, in their order. It can be killed and repeated at any moment.

    Raises OutageError if the store does not respond, JournalError if the journal is damaged or from a newer version,
    and StoreError if the store does not have the run. Hold its lock before.
    """
    try:
        return _deliver(journal)
    except UNSENDABLE as error:
        fault = f"cannot be sent, {type(error).__name__}: {shorten(error)}"
        raise _journal_error(journal, "a call", fault) from error


@translate_errors()
def _deliver(journal: Journal) -> Delivery:
    pending = journal.pending()
    _check_calls(journal, pending)
    connect()
    run_id = locate(journal.run_id) or _create(journal, pending)
    for duplicate in _find(journal.run_id)[1:]:  # created by a request whose answer was lost
        with permitted():
            mlflow.MlflowClient().delete_run(duplicate.info.run_id)
    for group in _batches(pending):
        sent = [Call(one["kind"], one["content"], one["at"], journal.files(one["number"])) for one in group]
        if sent[0].kind == "metrics":
            calls.send_metrics(run_id, sent)
        else:
            calls.send(run_id, sent[0])
        journal.mark_delivered(group[-1]["number"])
    epochs = sum("val_loss" in one["content"]["values"] for one in pending if one["kind"] == "metrics")
    files = sum(path.is_file() for one in pending for path in journal.files(one["number"]).rglob("*"))
    return Delivery(journal, run_id, epochs, files)


def _check_calls(journal: Journal, pending: Sequence[Line]) -> None:
    """Raise JournalError for a call that this version cannot send. Later calls must not overtake it."""
    for line in pending:
        number = line["number"]
        if not calls.is_known(line["kind"], line["at"], line["content"]):
            kind = shorten(line["kind"], 40)
            raise _journal_error(
                journal, f"call {number}", f"is damaged or written by a newer version, its kind is {kind!r}"
            )
        if line["kind"] == "artifacts" and not any(path.is_file() for path in journal.files(number).rglob("*")):
            raise _journal_error(journal, f"call {number}", f"has no files, they should be in {FILES}/{number}")


def _journal_error(journal: Journal, call: str, fault: str) -> JournalError:
    """fault: what is wrong with the call, as the rest of a sentence."""
    return JournalError(
        f"{call} in {journal.folder / RECORDS} {fault}: use the version of emotion-detection that has written it, or "
        f"delete {journal.folder}, which contains what the store has missed",
        f"{call} in {RECORDS} {fault}",
    )


def _create(journal: Journal, pending: Sequence[Line]) -> str:
    """Create the run whose start is in the journal."""
    first: Line = pending[0] if pending else {"kind": ""}
    if first["kind"] != "start" or not first["content"].get("create"):
        raise StoreError(
            f"{redact_uri(store_uri())} does not contain this run: restore it in MLflow's page, or delete "
            f"{journal.folder}, which contains what it missed"
        )
    client, content = mlflow.MlflowClient(), first["content"]
    created = client.create_run(project_experiment(), first["at"], content["tags"], content.get("name"))
    return str(created.info.run_id)


def _batches(pending: Sequence[Line]) -> Iterator[list[Line]]:
    """The calls in their order. Successive metrics are one request."""
    for is_metrics, group in groupby(pending, lambda line: line["kind"] == "metrics"):
        lines, size = list(group), MAX_BATCH if is_metrics else 1
        yield from (lines[start : start + size] for start in range(0, len(lines), size))


def deliver_waiting(timeout_s: float | None = None) -> Iterator[Delivery]:
    """Deliver all journals of the present store, oldest first. Those of running processes are left to them.

    A later journal of a run waits until the earlier one is delivered. A model that waits for its registration stays in
    its journal. timeout_s: see exclusive_delivery. Raises OutageError if the store does not respond.
    """
    if not journals():
        return
    left: dict[str, Delivery] = {}  # by the run
    with exclusive_delivery(timeout_s):
        for journal in journals():
            if not journal.is_for_present_store:
                continue
            if earlier := left.get(journal.run_id):
                yield from _postpone(journal, earlier)
                continue
            try:
                with journal.lock(0):
                    for delivery in _deliver_one(journal):
                        if delivery.error:
                            left[journal.run_id] = delivery
                        yield delivery
            except BusyError:
                left[journal.run_id] = Delivery(journal, "")


def _postpone(journal: Journal, earlier: Delivery) -> Iterator[Delivery]:
    """Leave a journal alone, as an earlier one of the same run is not delivered: its calls must not overtake others."""
    if journal.pending():
        reason = f"{journal.folder} waits until {earlier.journal.folder} is delivered, which is earlier"
        yield Delivery(journal, "", error=f"run {journal.run_id}: {reason}", outage=earlier.outage)


def _deliver_one(journal: Journal) -> Iterator[Delivery]:
    """Deliver a journal whose process has ended."""
    if not journal.exists:  # another process has delivered it meanwhile
        return
    pending = journal.pending()
    try:
        if pending:
            delivery = deliver(journal)
            _end_killed(delivery, pending[-1])
            yield delivery
    except OutageError as error:
        check_store()  # a store that responds has refused only this run, as one of another account
        yield Delivery(journal, "", error=f"run {journal.run_id}: {error}", outage=error)
    except StoreError as error:
        yield Delivery(journal, "", error=f"run {journal.run_id}: {error}")
    else:
        _remove_if_done(journal)


@translate_errors()
def _end_killed(delivery: Delivery, last: Line) -> None:
    """End a run whose process was killed before it could."""
    if last["kind"] != "end":
        calls.send(delivery.run_id, Call("end", {"status": "KILLED", "reason": "its process was killed"}, last["at"]))


def _remove_if_done(journal: Journal) -> None:
    if not journal.registration.exists() and not journal.pending():
        journal.remove()
