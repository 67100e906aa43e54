"""Prepare the data: split it, drop leaked rows, and write faces.npz, a report and figures."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cyclopts import Parameter

from emotion_detection.atomic import atomic_output
from emotion_detection.command_line import run_command
from emotion_detection.config import load_params
from emotion_detection.data import figures
from emotion_detection.data.dataset import TEST, Faces, digest, save, votes_digest
from emotion_detection.data.formats import VOTES_FOLDER, RawData, read_raw
from emotion_detection.data.splits import Duplicates, drop_leaks, find_duplicates, split_faces
from emotion_detection.data.votes import JoinedVotes, join_votes, plurality_agreement, read_votes
from emotion_detection.emotions import EMOTIONS, SPLITS
from emotion_detection.errors import DataError
from emotion_detection.experiments.provenance import pinned_md5


@Parameter(name="*")
@dataclass(frozen=True)
class PreparePaths:
    """The files of the prepare stage."""

    params: Path
    """The file params.yaml."""
    data: Path
    """The folder with the raw data."""
    pin: Path
    """The .dvc file that tracks that folder."""
    faces: Path
    """The npz file to write."""
    report: Path
    """The JSON file to write."""
    figures: Path
    """The folder of PNG files to write."""


def prepare(paths: PreparePaths) -> None:
    """Prepare the raw data. Raise DataError if they are damaged or leave a split empty."""
    params = load_params(paths.params).prepare
    raw = read_raw(paths.data)
    all_faces = split_faces(raw.faces, val_fraction=params.val_fraction, test_fraction=params.test_fraction)
    votes = paths.data / VOTES_FOLDER
    joined = join_votes(read_votes(votes), raw) if votes.is_dir() else None
    faces, leaks = drop_leaks(with_votes(all_faces, joined))
    for split in SPLITS:
        if not len(faces.of(split)):
            raise DataError(f"the {split} split is empty: add data to {paths.data} or change prepare.*_fraction")
    duplicates = find_duplicates(all_faces)
    report = describe(raw, all_faces, faces, duplicates) | {"leaks": leaks, "dvc_md5": pinned_md5(paths.pin)}
    if joined:
        report["votes"] = describe_votes(joined, faces)
    # All outputs get their names at the end, so that a full disk leaves the previous ones.
    with atomic_output(paths.figures) as folder, atomic_output(paths.report) as temporary:
        folder.mkdir()
        figures.classes_per_split(faces, folder / "classes.png")
        figures.contact_sheet(faces, folder / "contact_sheet.png")
        figures.duplicates_sheet(all_faces, duplicates.groups, path=folder / "duplicates.png")
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        save(faces, paths.faces)
    print("\n".join([f"{report['form']}: {report['rows']} faces kept; leaks: {leaks}", *raw.notes]))
    if joined:
        print(f"faces with votes: {describe_votes(joined, faces)['faces']}")


def describe(raw: RawData, all_faces: Faces, faces: Faces, duplicates: Duplicates) -> dict[str, object]:
    """Return the report: `all_faces` includes the leaked rows, `faces` does not."""
    # Models of data sets with the same name are compared, so the name includes a split that is not an official one.
    suffix = "" if all_faces is raw.faces else f"-{digest(all_faces)[:8]}"
    return {
        "dataset": raw.dataset + suffix,
        "form": raw.form,
        "notes": list(raw.notes),
        "digest": digest(faces),
        "rows": {split: len(faces.of(split)) for split in SPLITS},
        "emotions": {split: count_emotions(faces.of(split)) for split in SPLITS},
        "distinct_pictures": duplicates.distinct,
        "duplicate_groups": len(duplicates.groups),
        "groups_with_conflicting_labels": len(duplicates.conflicts),
        "blank_pictures": len(duplicates.blank),
    }


def with_votes(faces: Faces, joined: JoinedVotes | None) -> Faces:
    """Add the votes of the train and val faces. Those of test faces judge the result and are left out."""
    if joined is None:
        return faces
    return replace(faces, votes=np.where((faces.splits == TEST)[:, np.newaxis], 0, joined.votes).astype(np.uint8))


def describe_votes(joined: JoinedVotes, faces: Faces) -> dict[str, object]:
    """The number of faces with votes, those without, and how many labels are the most frequent choice of the raters."""
    parts = {split: faces.of(split) for split in ("train", "val")}
    voted = {split: part[part.voted] for split, part in parts.items()}
    return {
        "files": list(joined.files),
        "digest": votes_digest(faces),
        "faces": {split: len(part) for split, part in voted.items()},
        "missing": {split: len(parts[split]) - len(part) for split, part in voted.items()},
        "agreement": {
            split: round(plurality_agreement(part.votes, part.labels), 4)
            for split, part in voted.items()
            if part.votes is not None and len(part)
        },
    }


def count_emotions(faces: Faces) -> dict[str, int]:
    """Return the number of faces of each emotion."""
    return {emotion: int((faces.labels == label).sum()) for label, emotion in enumerate(EMOTIONS)}


if __name__ == "__main__":
    run_command(prepare)
