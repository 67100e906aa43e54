"""What a training runs on: Python, the machine and the versions of the packages."""

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

LOCK = "requirements.lock"
# Those that compute or store a result.
PACKAGES = (
    "dvc", "emotion-detection", "keras", "mlflow", "numpy", "onnx", "onnxruntime", "opencv-python", "pillow", "scipy",
    "tensorflow", "tf2onnx",
)  # fmt: skip


def environment(project: Path) -> dict[str, Any]:
    """The environment of this process. `project` is the folder of requirements.lock."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_features": cpu_features(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "requirements_lock": lock_digest(project),
        "packages": {name: found for name in PACKAGES if (found := _installed(name))},
    }


def environment_digest(found: dict[str, Any]) -> str:
    """The first 16 digits of the SHA-256 of an environment: equal environments have equal digests."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def lock_digest(project: Path) -> str | None:
    """The SHA-256 (hex) of requirements.lock; None if the folder has none."""
    path = project / LOCK
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def cpu_features() -> list[str]:
    """The instruction sets of the CPU that NumPy knows. Libraries choose their kernels by them."""
    known: Any = np.show_config(mode="dicts")
    extensions = known.get("SIMD Extensions", {}) if isinstance(known, dict) else {}
    return sorted({*extensions.get("baseline", []), *extensions.get("found", [])})


def environment_differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two environments, the libraries first."""
    packages = sorted({*then.get("packages", {}), *now.get("packages", {})})
    pairs = [(name, then.get("packages", {}).get(name), now.get("packages", {}).get(name)) for name in packages]
    pairs += [(name, then.get(name), now.get(name)) for name in ("python", "cpu", "platform", "cores")]
    absent = "not installed"
    found = [
        f"{name} was {before or absent} and is {after or absent}" for name, before, after in pairs if before != after
    ]
    gone = sorted({*then.get("cpu_features", [])} ^ {*now.get("cpu_features", [])})
    return found + ([f"the CPUs differ in {', '.join(gone)}"] if gone else [])


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
