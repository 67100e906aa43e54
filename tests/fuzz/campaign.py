"""`python -m tests.fuzz.campaign`: try damaged inputs at every door for some minutes, and print a table.

Every input follows from the seed of the campaign, the door and the number of the input, so that a fault can be
repeated. Inputs that found a fault are kept as files.
"""

import hashlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import IO, Annotated, Any

from cyclopts import App, Parameter
from tests.fuzz.doors import DOORS, Door
from tests.fuzz.seeds import Input
from tests.support.paths import ROOT

START_S = 300  # to import a door's libraries
PATIENCE = 4  # wall clock until a worker is ended, as a multiple of what counts as a hang
REFUSED_MB = 300  # memory above idle that a refused input may take
SHARE = {"model": 0.5, "video": 0.5, "weights": 0.3}  # of the others' time


@dataclass
class Result:
    """What happened at one door. faults: signature -> how often; the rest are counts and peaks."""

    door: str
    seed: int
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    hangs: int = 0
    crashes: int = 0
    worst_mb: float = 0.0
    worst_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    messages: Counter[str] = field(default_factory=Counter)

    def row(self) -> str:
        numbers = (self.inputs, self.accepted, self.refused, sum(self.faults.values()), self.hangs, self.crashes)
        return (
            f"{self.door:12}"
            + "".join(f"{number:>10,}" for number in numbers)
            + (f"{self.worst_mb:>10,.0f}{self.worst_s:>9.2f}")
        )


HEADINGS = ("inputs", "accepted", "refused", "faults", "hangs", "crashes", "worst MB", "worst s")
HEADER = f"{'door':12}" + "".join(f"{heading:>10}" for heading in HEADINGS[:-1]) + f"{HEADINGS[-1]:>9}"


class Worker:
    """A process that reads inputs at a door, in a folder of its own; started again after a crash or a hang."""

    def __init__(self, name: str, seeds: list[Input], folder: Path) -> None:
        self._name, self._folder = name, folder
        self._process: subprocess.Popen[str] | None = None
        (folder / "seeds").mkdir(parents=True)
        (folder / "home").mkdir()
        for number, seed in enumerate(seeds):
            write(seed, folder / "seeds" / f"seed-{number}")

    def run(self, path: Path, patience_s: float) -> dict[str, Any]:
        """The worker's answer; {"outcome": "hang"} or {"outcome": "crash"} if there is none."""
        process = self._process or self._start()
        print(json.dumps({"path": str(path)}), file=_open(process.stdin), flush=True)
        answer = self._answer(process, patience_s)
        if answer.get("signature", "").startswith("MemoryError"):
            self.stop()  # what is left of the memory differs from an idle worker's
        return answer

    def stop(self) -> int:
        """End the process; returns its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()
        return process.wait()

    def _start(self) -> subprocess.Popen[str]:
        home, paths = str(self._folder / "home"), f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        folders = {"HOME": home, "TMPDIR": home, "PYTHONPATH": paths}
        quiet = {"PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", self._name], cwd=self._folder, text=True,
            env=os.environ | folders | quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        answer = self._answer(self._process, START_S)
        if answer["outcome"] != "ready":
            log = (self._folder / "printed.txt").read_text()[-2000:]
            raise RuntimeError(f"the door {self._name} did not open ({answer['outcome']}): {log}")
        return self._process

    def _answer(self, process: subprocess.Popen[str], patience_s: float) -> dict[str, Any]:
        output = _open(process.stdout)
        ready, _, _ = select.select([output], [], [], patience_s)
        line = output.readline() if ready else None
        if line:
            return dict(json.loads(line))
        status = self.stop()
        return {"outcome": "hang"} if line is None else {"outcome": "crash", "signature": f"exit status {status}"}


def _open(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def write(data: Input, path: Path) -> Path:
    """Write an input; its suffix is appended to the name."""
    path = path.with_name(path.name + data.suffix)
    members = data.content if isinstance(data.content, dict) else None
    if members is None:
        path.write_bytes(data.content)  # type: ignore[arg-type]
        return path
    path.mkdir()
    for name, content in members.items():
        file = Path(os.path.normpath(path / name.lstrip("/")))
        if path in file.parents and len(file.name) < 200 and not file.is_dir():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return path


def inputs(door: Door, seeds: list[Input], seed: int) -> Iterator[tuple[Input, int | None]]:
    """Bombs and damaged seeds in turn, without end; with the number of the seed whose bytes were damaged."""
    bombs = iter(door.bombs())
    for number in itertools.count():
        if bomb := next(bombs, None):
            yield bomb, None
        random = Random(f"{seed} {number}")
        chosen = random.randrange(len(seeds))
        damaged, below = door.damage(seeds[chosen], random)
        yield damaged, chosen if below else None


def fuzz(name: str, *, seed: int, seconds: float, most: int, kept: Path, folder: Path) -> Result:
    """Try inputs at a door until the time or their number is used up; keep those that found a fault."""
    door, result = DOORS[name], Result(name, seed)
    seeds = door.seeds()
    worker = Worker(name, seeds, folder)
    place, kept = folder / "inputs", kept / name.replace(" ", "-")
    counts = [_count(worker, write(one, folder / f"intact-{at}"), result) for at, one in enumerate(seeds)]
    end_s = time.monotonic() + seconds
    try:
        for number, (data, chosen) in enumerate(inputs(door, seeds, seed)):
            if time.monotonic() > end_s or number >= most:
                return result
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            path = write(data, place / f"{number:05}")
            answer = worker.run(path, door.hang_s * PATIENCE)
            expected = counts[chosen] if door.complete and chosen is not None else 0
            if fault := judge(answer, result, hang_s=door.hang_s, expected=expected):
                keep(write, data, kept, number, fault, answer)
        return result
    finally:
        worker.stop()


def _count(worker: Worker, path: Path, result: Result) -> int:
    """How many things the door reads from an intact file."""
    answer = worker.run(path, 60)
    if answer["outcome"] != "accepted":
        result.faults[f"an intact file is not accepted: {answer}"[:600]] += 1
    return int(answer.get("count", 0))


def judge(answer: dict[str, Any], result: Result, *, hang_s: float, expected: int) -> str:
    """Add an answer to the result; returns the fault that it shows, or an empty text."""
    outcome, megabytes, seconds = answer["outcome"], answer.get("megabytes", 0.0), answer.get("seconds", 0.0)
    result.inputs += 1
    result.accepted += outcome == "accepted"
    result.refused += outcome == "refused"
    result.worst_s = max(result.worst_s, seconds)
    if outcome == "refused":
        result.worst_mb = max(result.worst_mb, megabytes)
        result.messages[answer["message"]] += 1
    fault = str(answer.get("signature", "")) if outcome in ("fault", "crash") else ""
    if outcome == "hang" or seconds > hang_s:
        result.hangs += 1
        fault = f"hang: {seconds or hang_s * PATIENCE:.0f} s"
    elif outcome == "crash":
        result.crashes += 1
    elif outcome == "refused" and megabytes > REFUSED_MB:
        fault = f"memory: refused with more than {REFUSED_MB} MB"
    elif outcome == "accepted" and answer["count"] < expected:
        fault = "silence: fewer faces than in the intact file, and no word about it"
    if fault:
        result.faults[fault] += 1
    return fault


def keep(writer: Any, data: Input, folder: Path, number: int, fault: str, answer: dict[str, Any]) -> None:
    """Keep the first input of each fault, with a text about it."""
    digest = hashlib.sha256(fault.encode()).hexdigest()[:8]
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{digest}-*")):
        writer(data, folder / f"{digest}-{number:05}")
        text = {"fault": fault, **answer}
        (folder / f"{digest}.txt").write_text("\n".join(f"{key}: {value}" for key, value in text.items()) + "\n")


def report(results: list[Result]) -> str:
    """The table, and the faults below it."""
    total = Result("all", 0)
    for result in results:
        for name in ("inputs", "accepted", "refused", "hangs", "crashes"):
            setattr(total, name, getattr(total, name) + getattr(result, name))
        total.faults += result.faults
        total.worst_mb, total.worst_s = max(total.worst_mb, result.worst_mb), max(total.worst_s, result.worst_s)
    faults = [f"{one.door}: {count} x {fault}" for one in results for fault, count in one.faults.most_common()]
    return "\n".join([HEADER, *(result.row() for result in results), total.row(), *faults])


def run_campaign(
    *,
    minutes: Annotated[float, Parameter(help="How long to try inputs, in total.")] = 30,
    seed: Annotated[str, Parameter(help="Repeats a campaign; by default another number each time.")] = "",
    door: Annotated[tuple[str, ...], Parameter(help="Only these doors.")] = (),
    most: Annotated[int, Parameter(help="The most inputs for one door.")] = 1_000_000,
    kept: Annotated[Path, Parameter(help="Where inputs are kept that found a fault.")] = Path("build/fuzz"),
) -> None:
    """Fuzz the doors and print a table. The exit status is 1 if an input found a fault."""
    number = int(seed) if seed.strip() else Random().randrange(1_000_000)
    print(f"SEED={number}", flush=True)
    names = door or tuple(DOORS)
    unit_s = 60 * minutes / sum(SHARE.get(name, 1) for name in names)
    results = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            seconds = unit_s * SHARE.get(name, 1)
            results.append(
                fuzz(
                    name, seed=number, seconds=seconds, most=most, kept=kept.absolute(), folder=Path(folder) / "worker"
                )
            )
        print(results[-1].row(), flush=True)
    print(report(results))
    if any(result.faults for result in results):
        print(f"inputs that found a fault are in {kept}/")
        sys.exit(1)


if __name__ == "__main__":
    app = App()
    app.default(run_campaign)
    app()
