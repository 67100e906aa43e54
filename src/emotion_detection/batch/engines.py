"""What maps the scoring of parts over processes or machines: our own processes, Ray Data or Spark."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from importlib import import_module
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from typing import Any

from emotion_detection.batch.scoring import Counts, Job, score_part
from emotion_detection.errors import EmotionDetectionError, UsageError

Task = tuple[int, int]  # the number of a part, and its position in the plan
Engine = Callable[[Job, Sequence[Task], int | None], Iterator[Counts]]  # with a number of workers
TASKS_PER_WORKER = 2  # that wait or run, so that no worker waits for the next one


class WorkerError(EmotionDetectionError):
    """A worker process ended before its part was finished."""


def run_local(job: Job, tasks: Sequence[Task], workers: int | None) -> Iterator[Counts]:
    """Score the parts in processes of this machine, in this process if it is one. Yield them as they are finished.

    Raises WorkerError if a process was killed, for example because the memory is full.
    """
    workers = min(workers or _cores(), len(tasks))
    if workers == 1:
        yield from (score_part(job, *task) for task in tasks)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (job,))
    try:
        yield from _in_pool(pool, tasks, TASKS_PER_WORKER * workers)
    except BrokenProcessPool as error:
        raise WorkerError(
            "a worker ended unexpectedly, perhaps because the memory is full: repeat the command to continue, "
            "with fewer --workers if it happens again"
        ) from error
    except BaseException:  # also Ctrl-C: what the workers do now is done again, so nobody should wait for it
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _in_pool(pool: ProcessPoolExecutor, tasks: Sequence[Task], most: int) -> Iterator[Counts]:
    """Hand the tasks out, at most some of them at once."""
    rest = iter(tasks)
    running: set[Future[Counts]] = {pool.submit(_score, *task) for task in islice(rest, most)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(_score, *task) for task in islice(rest, len(done))}
        for future in done:
            yield future.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_job: Job


def _start_worker(job: Job) -> None:
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C: the command ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process if the command was killed; it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _score(number: int, offset: int) -> Counts:
    return score_part(_job, number, offset)


def run_ray(job: Job, tasks: Sequence[Task], workers: int | None) -> Iterator[Counts]:
    """Score the parts with Ray Data, on the cluster of RAY_ADDRESS or on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    import ray.data as ray_data

    class Scorer:
        """Loads the model once for each actor."""

        def __init__(self, job: Job) -> None:
            self._job = job

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            return asdict(score_part(self._job, int(row["number"]), int(row["offset"])))

    is_ours = not ray.is_initialized()
    if is_ours:
        ray.init(log_to_driver=False)
    ray_data.DataContext.get_current().enable_progress_bars = False  # there is one already
    rows = [{"number": number, "offset": offset} for number, offset in tasks]
    data = ray_data.from_items(rows, override_num_blocks=len(rows))
    # Half a core each, because Ray needs a part of one for itself: with all cores taken, it would wait for ever.
    strategy = ray_data.ActorPoolStrategy(size=workers or int(ray.cluster_resources()["CPU"]))
    scored = data.map(Scorer, fn_constructor_args=(job,), compute=strategy, num_cpus=0.5)
    try:
        for row in scored.iter_rows():
            yield Counts(**row)
    finally:
        if is_ours:
            ray.shutdown()


def run_spark(job: Job, tasks: Sequence[Task], workers: int | None) -> Iterator[Counts]:
    """Score the parts with Spark: on its configured master, or with a number of workers on this machine."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("emotion-detection batch")
    if workers:
        builder = builder.master(f"local[{workers}]").config("spark.ui.enabled", "false")

    def score(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            for row in batch.to_pylist():
                yield pa.RecordBatch.from_pylist([asdict(score_part(job, row["number"], row["offset"]))])

    is_ours = SparkSession.getActiveSession() is None
    session = builder.getOrCreate()
    frame = session.createDataFrame(list(tasks), "number long, offset long").repartition(len(tasks))
    schema = ", ".join(f"{name} long" for name in asdict(Counts(0)))
    try:
        rows = frame.mapInArrow(score, schema).collect()
    finally:
        if is_ours:
            session.stop()
    yield from (Counts(**row.asDict()) for row in rows)


def check_engine(name: str) -> None:
    """Raise UsageError if the package of an engine is not installed."""
    module, package = {"ray": ("ray.data", "ray[data]"), "spark": ("pyspark", "pyspark")}.get(name, ("os", ""))
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"--engine {name} needs {package}: pip install '{package}', or use --engine local") from error


ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray, "spark": run_spark}
