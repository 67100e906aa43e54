"""`python -m tests.fuzz.worker DOOR`: read one input after another, and report what happened, as lines of JSON.

The worker lives in its own folder, with a limit on its memory. It reports Python's attempts to write elsewhere or to
connect to another host. The parent ends it when an input takes too long.
"""

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.doors import DOORS, Read

MEMORY_BYTES = 5 << 30  # address space above that of an idle worker: more than the bombs take
MESSAGE_CHARACTERS = 600
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
LOOPBACK = ("127.0.0.1", "::1", "localhost")
OWN_PACKAGES = ("/emotion_detection/", "/demo/")
ESCAPES: list[str] = []  # what the last input made us write elsewhere


def main(name: str) -> None:
    """Answer each line {"path"} with {"outcome", ...}; the first answer says that the door is open."""
    answers = os.fdopen(os.dup(1), "w")
    log = Path("printed.txt")
    for descriptor in (1, 2):  # what libraries print is no answer
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    read = DOORS[name].open_door()
    for warm_up in sorted(Path("seeds").glob("*")):
        run(read, warm_up, log)
    soft = _kilobytes("VmSize") * 1024 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    sys.addaudithook(_watch)
    print(json.dumps({"outcome": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(read, Path(json.loads(line)["path"]), log)), file=answers, flush=True)


def run(read: Read, path: Path, log: Path) -> dict[str, Any]:
    """Read an input; returns outcome, signature (equal for equal faults), count, megabytes and seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, logged, ESCAPES[:] = _kilobytes("VmRSS"), log.stat().st_size, []
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    answer = _outcome(read, path)
    # On a busy machine the wall clock runs on while others compute.
    wall_s = time.monotonic() - start_s
    answer |= {"seconds": min(wall_s, time.process_time() - start_cpu_s), "wall_s": wall_s}
    answer |= {"megabytes": (_kilobytes("VmHWM") - before) / 1024}
    with log.open("rb") as stream:
        stream.seek(logged)
        printed = stream.read(100_000)
    if ESCAPES:
        answer |= {"outcome": "fault", "signature": f"escape {ESCAPES[0]}"}
    elif answer["outcome"] != "fault" and b"Traceback (most recent" in printed:
        last = printed.decode(errors="replace").strip().splitlines()[-1]
        answer |= {"outcome": "fault", "signature": f"logged {last[:200]}"}
    return answer


def _outcome(read: Read, path: Path) -> dict[str, Any]:
    from emotion_detection.errors import EmotionDetectionError

    try:
        return {"outcome": "accepted", "count": read(path)}
    except EmotionDetectionError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > MESSAGE_CHARACTERS:
            kind = "lines" if len(message.splitlines()) != 1 else "characters"
            return {"outcome": "fault", "signature": f"a message of too many {kind}", "message": message[:2000]}
        return {"outcome": "refused", "message": message}
    except BaseException as error:
        return {"outcome": "fault", "signature": _signature(error), "trace": traceback.format_exc()[-6000:]}


def _signature(error: BaseException) -> str:
    """The kind of the exception and the last place in the project's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if any(package in frame.filename for package in OWN_PACKAGES)] or frames
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {place}"


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: note each write outside the working directory, and each connection beyond this computer."""
    if (event == "open" and arguments[2] & WRITES and not isinstance(arguments[0], int)) or event in (
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.truncate",
    ):
        _note_path(event, arguments[0])
    elif event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in LOOPBACK:
        ESCAPES.append(f"{event} {arguments[1]}")
    elif event == "subprocess.Popen":
        ESCAPES.append(f"{event} {arguments[0]!r}") if "decoding" not in str(arguments[1]) else None


def _note_path(event: str, path: Any) -> None:
    full = os.path.abspath(os.fsdecode(path))
    if not full.startswith((os.getcwd(), "/dev/", "/proc/self")):
        ESCAPES.append(f"{event} {full}")


if __name__ == "__main__":
    main(sys.argv[1])
