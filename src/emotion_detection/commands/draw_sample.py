"""Draw the built-in sample: `emotion-detection draw-sample sample/sample.zip`."""

from pathlib import Path

from emotion_detection.errors import UsageError
from emotion_detection.synthetic.sample import write_sample


def draw_sample(archive: Path, *, per_class: int = 200, seed: int = 2013) -> None:
    """Draw the built-in sample.

    Args:
        archive: The zip file to write.
        per_class: The number of faces of each emotion, at least 6.
        seed: The seed of the random generator.
    """
    if per_class < 6:
        raise UsageError(f"--per-class is {per_class}: use 6 or more, so that every split gets faces")
    archive.parent.mkdir(parents=True, exist_ok=True)
    write_sample(archive, per_class=per_class, seed=seed)
