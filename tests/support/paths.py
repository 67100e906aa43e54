"""Where the project's own files are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "emotion_detection"
PRETRAINED = PACKAGE / "pretrained"
ARCHIVE = ROOT.parent / "shared" / "fer2013" / "archive.zip"  # the real data set; tests of it skip without it
