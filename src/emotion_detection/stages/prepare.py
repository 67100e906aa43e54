"""Raw data -> faces.npz with honest splits, a report on the data, and figures of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import load_params
from emotion_detection.data import figures
from emotion_detection.data.dataset import Faces, digest, save
from emotion_detection.data.formats import Raw, read_raw
from emotion_detection.data.splits import Duplicates, divide, drop_leaks, duplicates
from emotion_detection.emotions import EMOTIONS, SPLITS
from emotion_detection.errors import InputError
from emotion_detection.experiments.provenance import pinned_md5


@Parameter(name="*")
@dataclass(frozen=True)
class PreparePaths:
    """The files of the prepare stage."""

    params: Path
    """params.yaml"""
    data: Path
    """Folder with the raw data."""
    pin: Path
    """DVC's pointer to that folder."""
    faces: Path
    """The npz file to write."""
    report: Path
    """The JSON file to write."""
    figures: Path
    """The folder for PNG files."""


def prepare(paths: PreparePaths) -> None:
    """Split, drop leaked rows, save; InputError if the raw data are broken."""
    params = load_params(paths.params).prepare
    raw = read_raw(paths.data)
    divided = divide(raw.faces, val_fraction=params.val_fraction, test_fraction=params.test_fraction)
    faces, leaks = drop_leaks(divided)
    for split in SPLITS:
        if not len(faces.of(split)):
            raise InputError(f"{paths.data} leaves {split} no face: give more data, or change prepare.*_fraction")
    found = duplicates(divided)
    report = describe(raw, divided, faces, found) | {"leaks": leaks, "dvc_md5": pinned_md5(paths.pin)}
    with atomic_output(paths.figures) as folder:
        folder.mkdir()
        figures.classes_per_split(faces, folder / "classes.png")
        figures.contact_sheet(faces, folder / "contact_sheet.png")
        figures.duplicates_sheet(divided, found.groups, path=folder / "duplicates.png")
    with atomic_output(paths.report) as written:
        written.write_text(json.dumps(report, indent=2) + "\n")
    save(faces, paths.faces)
    print(f"{report['form']}: {report['rows']} faces kept; leaks: {leaks}")


def describe(raw: Raw, divided: Faces, faces: Faces, found: Duplicates) -> dict[str, object]:
    """What a reader of the results must know about the data; counts are of rows unless they say otherwise."""
    # Champions of one name compete, so a split of our own making is part of the name.
    ours = "" if divided is raw.faces else f"-{digest(divided)[:8]}"
    return {
        "dataset": raw.dataset + ours,
        "form": raw.form,
        "notes": list(raw.notes),
        "digest": digest(faces),
        "rows": {split: len(faces.of(split)) for split in SPLITS},
        "emotions": {split: count_emotions(faces.of(split)) for split in SPLITS},
        "distinct_pictures": found.distinct,
        "duplicate_groups": len(found.groups),
        "groups_with_conflicting_labels": len(found.conflicts),
        "blank_pictures": len(found.blank),
    }


def count_emotions(faces: Faces) -> dict[str, int]:
    return {emotion: int((faces.labels == label).sum()) for label, emotion in enumerate(EMOTIONS)}


if __name__ == "__main__":
    run_command(prepare)
