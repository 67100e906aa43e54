"""Deliver what the MLflow store has missed while it did not respond."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from emotion_detection.errors import EmotionDetectionError, StoreError, shorten
from emotion_detection.experiments.journal import BusyError, exclusive_delivery, journals

if TYPE_CHECKING:
    from emotion_detection.experiments.delivery import Delivery


def sync() -> None:
    """Deliver the runs and register the models that wait in build/journal, each exactly once.

    The pipeline keeps there what the MLflow store misses while it does not respond. The command can be stopped and
    repeated at any moment. If two run at once, one waits for the other.
    """
    waiting = [journal for journal in journals() if journal.is_for_present_store]
    for store, count in Counter(journal.store for journal in journals() if not journal.is_for_present_store).items():
        print(f"{_count(count, 'run')} for {store}: set MLFLOW_TRACKING_URI to this address to deliver it")
    if not waiting:
        print("nothing waits for this store")
        return
    from emotion_detection.experiments import delivery  # MLflow takes seconds to import

    delivery.check_store()
    with exclusive_delivery(), delivery.quiet():
        for one in delivery.deliver_waiting():
            print(one.error or _describe(one))
        for line in _register_waiting():
            print(line)
    left = sum(journal.exists for journal in waiting)
    if left:
        raise StoreError(f"not everything is delivered: {left} of {len(waiting)} runs still wait")


def _register_waiting() -> Iterator[str]:
    """Register the models whose runs are delivered; yields a line for each."""
    from emotion_detection.experiments.delivery import check_store
    from emotion_detection.experiments.outages import OutageError
    from emotion_detection.stages.register import register_postponed

    for journal in journals():
        if journal.is_for_present_store and journal.registration.exists() and not journal.pending():
            try:
                with journal.lock(0):
                    if journal.registration.exists():
                        yield register_postponed(journal)
            except BusyError:
                yield f"{journal.folder} is used by a running process, which delivers it"
            except EmotionDetectionError as error:
                if isinstance(error, OutageError):
                    check_store()  # a store that responds has refused only this model
                yield f"the model of the run {journal.run_id} is not registered: {error}"
            except (OSError, LookupError, TypeError, ValueError) as error:
                yield (
                    f"the model of the run {journal.run_id} is not registered, as {journal.registration} has a damaged "
                    f"or missing file ({type(error).__name__}: {shorten(error)}): restore it, or delete this folder "
                    "and run `make repro`, which registers the model of the present files"
                )


def _describe(delivery: "Delivery") -> str:
    """What a store has got, in a line."""
    parts = f"{_count(delivery.epochs, 'epoch')} and {_count(delivery.files, 'file')}"
    return f"run {delivery.run_id}: it has all that it missed, with {parts}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
