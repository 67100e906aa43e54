"""The doors through which a file of a stranger comes in, each as a function that reads one input completely.

A door returns how many things it has read, or raises an EmotionDetectionError. Its libraries are imported only when
it is opened, so that a worker needs only its own.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random

from tests.fuzz import mutations, seeds
from tests.fuzz.mutations import BYTES, TEXT, Mutation
from tests.fuzz.seeds import Input
from tests.support import fer_files

Read = Callable[[Path], int]
SMALL_PX = 1_000_000  # of a picture in which faces are searched too
TABLE_MAGIC = (b"PK", b"\x1f\x8b", b"ustar")


@dataclass(frozen=True)
class Door:
    """open_door imports what the door needs and returns the function that reads an input.

    hang_s: seconds after which reading one input counts as a hang. complete: whether reading fewer things from a
    damaged file than from the intact one, without an error, is a fault, because the format tells its damage.
    """

    open_door: Callable[[], Read]
    seeds: Callable[[], list[Input]]
    bombs: Callable[[], Iterable[Input]]
    mutations: tuple[Mutation, ...] = BYTES
    rewrite: Mutation | None = None
    hang_s: float = 5
    complete: bool = False

    def damage(self, seed: Input, random: Random) -> tuple[Input, bool]:
        """A damaged copy of a valid input, and whether its bytes were damaged below the format's own checks."""
        if isinstance(seed.content, dict):
            return Input(seed.suffix, mutations.change_members(seed.content, random, self.mutations)), False
        if self.rewrite and random.random() < 0.5:
            return Input(seed.suffix, self.rewrite(seed.content, random)), False
        content = seed.content
        for _ in range(random.choice((1, 1, 1, 3))):
            content = random.choice(self.mutations)(content, random)
        suffix = random.choice((*[seed.suffix] * 20, "", ".csv", ".png", ".mp4")) if seed.suffix else ""
        return Input(suffix, content), True


def _rewrite_archive(content: bytes, random: Random) -> bytes:
    return (
        mutations.rewrite_zip(content, random) if content.startswith(b"PK") else mutations.rewrite_tar(content, random)
    )


# Data sets


def _open_data() -> Read:
    from emotion_detection.data.formats import read_raw
    from emotion_detection.data.splits import drop_leaks, find_duplicates, split_faces

    def read(path: Path) -> int:
        raw = read_raw(path)
        assert raw.faces.images.shape == (len(raw.faces), 48, 48)
        assert (raw.faces.labels < 7).all()
        split = split_faces(raw.faces, val_fraction=0.2, test_fraction=0.2)
        kept, leaks = drop_leaks(split)
        find_duplicates(split)
        json.dumps({"notes": raw.notes, "form": raw.form, "dataset": raw.dataset, "kept": len(kept), "leaks": leaks})
        # What a note says is not silent. Every data set has a note about its number of rows or its split.
        return 1_000_000 if _says_what_is_missing(raw.notes) else len(raw.faces)

    return read


def _open_votes() -> Read:
    from emotion_detection.data.formats import RawData
    from emotion_detection.data.votes import join_votes, read_votes

    faces = seeds.faces()
    files = tuple(fer_files.kaggle_members(faces))

    def read(path: Path) -> int:
        table = read_votes(path)
        raw = RawData(faces, "", "", (), files if table.by_file else ())
        assert join_votes(table, raw).votes.shape == (len(faces), 10)
        return len(table)

    return read


def _open_results() -> Read:
    from emotion_detection.reporting.comparison import compare_results
    from emotion_detection.reporting.report import markdown_report
    from emotion_detection.reporting.results import Origin, read_results

    def read(folder: Path) -> int:
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        results = read_results(Origin("here", "run"), files.get)
        return len(markdown_report(compare_results(results, results)).splitlines())

    return read


def _open_shards() -> Read:
    from emotion_detection.batch.pictures import read_pictures
    from emotion_detection.batch.plan import divide
    from emotion_detection.batch.storage import Storage
    from emotion_detection.errors import DataError

    def read(path: Path) -> int:
        source = Storage(str(path.parent))
        pictures = [one for part in divide(source, [path.name], 50) for one in read_pictures(source, part)]
        assert all(one.reason or one.content is not None for one in pictures)
        damages = [one.reason for one in pictures if one.content is None]
        if damages:
            raise DataError(damages[0])
        return len(pictures)

    return read


def _says_what_is_missing(notes: tuple[str, ...]) -> bool:
    return any(word in note for note in notes for word in ("missing", "skipped", "damaged", "not read", "unreadable"))


# Media


def _open_pictures() -> Read:
    from emotion_detection.decoding.images import read_image
    from emotion_detection.inference.recognizer import Recognizer

    recognizer = Recognizer.load()

    def read(path: Path) -> int:
        frame = read_image(path)
        assert frame.ndim == 3
        assert frame.shape[2] == 3
        if frame.shape[0] * frame.shape[1] <= SMALL_PX:
            recognizer.recognize(frame)
        return 1

    return read


def _open_videos() -> Read:
    from emotion_detection.inference.face_tracker import FaceTracker
    from emotion_detection.inference.media import open_video
    from emotion_detection.inference.recognizer import Recognizer

    recognizer = Recognizer.load()

    def read(path: Path) -> int:
        tracker, frames, last_s = FaceTracker(recognizer), 0, 0.0
        with open_video(path) as video:
            for time_s, frame in video:
                assert time_s >= last_s
                frames, last_s = frames + 1, time_s
                tracker.recognize(frame, time_s)
        return frames

    return read


# Settings


def _open_params() -> Read:
    from emotion_detection.config import load_params

    def read(path: Path) -> int:
        load_params(path).model_dump(mode="json")
        return 1

    return read


def _open_recipes() -> Read:
    import shutil

    from tests.support.paths import ROOT

    from emotion_detection.commands.adopt import adopt
    from emotion_detection.config import load_params, load_recipe
    from emotion_detection.errors import ConfigError

    def read(path: Path) -> int:
        params = path.parent / "adopted.yaml"
        shutil.copyfile(ROOT / "params.yaml", params)
        try:
            load_recipe(path)
            adopt(str(path), params=params)
        except ConfigError:
            assert params.read_bytes() == (ROOT / "params.yaml").read_bytes()
            raise
        load_params(params)
        return 1

    return read


# NumPy files, models, reports


def _open_face_files() -> Read:
    from emotion_detection.data.dataset import load

    return lambda path: len(load(path))


def _by_digest(path: Path) -> Path:
    """The file under the name that belongs to its content, as files of weights and soft labels have."""
    return path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.npz"))


def _open_soft_labels() -> Read:
    import numpy as np
    from tests.support.paths import ROOT

    from emotion_detection.config import load_params
    from emotion_detection.training.distillation import read_soft_labels, targets

    train = load_params(ROOT / "params.yaml").train
    faces = seeds.faces().of("train")

    def read(path: Path) -> int:
        path = _by_digest(path)
        distillation = train.distillation.model_copy(update={"soft_labels": str(path), "weight": 0.7})
        hard, soft = targets(train.model_copy(update={"distillation": distillation}), faces)
        assert hard.shape == (len(faces), 7)
        assert np.isfinite(hard).all()
        assert soft is None or np.isfinite(soft).all()
        if soft is None:
            read_soft_labels(path, faces)
        return 1

    return read


def _open_weights() -> Read:
    from tests.support.paths import ROOT

    from emotion_detection.config import load_params
    from emotion_detection.training.initial_weights import load_initial_weights
    from emotion_detection.training.trainer import build_with

    train = load_params(ROOT / "params.yaml").train.model_copy(update={"widths": (4,), "blocks": (1,)})
    model = build_with(train, precision="float32")

    def read(path: Path) -> int:
        load_initial_weights(model, _by_digest(path))
        return 1

    return read


def _weight_files() -> list[Input]:
    import tempfile

    from tests.support.paths import ROOT

    from emotion_detection.config import load_params
    from emotion_detection.training.initial_weights import save_initial_weights
    from emotion_detection.training.trainer import build_with

    train = load_params(ROOT / "params.yaml").train.model_copy(update={"widths": (4,), "blocks": (1,)})
    with tempfile.TemporaryDirectory() as folder:
        weights = build_with(train, precision="float32").get_weights()
        return [Input(".npz", save_initial_weights(weights, Path(folder)).read_bytes())]


def _open_models() -> Read:
    import numpy as np

    from emotion_detection.errors import ModelError
    from emotion_detection.inference.class_activation import ClassActivationMapper
    from emotion_detection.inference.classifier import EmotionClassifier

    faces = seeds.faces().images[:2]

    def read(path: Path) -> int:
        classifier = EmotionClassifier(path)
        probabilities = classifier.probabilities(faces)
        assert probabilities.shape == (2, 7)
        assert np.isfinite(probabilities).all(), "the probabilities are not finite"
        assert classifier.temperature > 0
        try:
            ClassActivationMapper(path).heatmaps(faces)
        except ModelError:  # the demo then shows no maps
            return 1
        return 2

    return read


def _open_reports() -> Read:
    from emotion_detection.experiments.provenance import read_data_report

    return lambda path: len(read_data_report(path, "dataset", "digest", "dvc_md5"))


def _open_pins() -> Read:
    from emotion_detection.experiments.provenance import pinned_md5

    return lambda path: len(pinned_md5(path))


def _pins() -> list[Input]:
    from tests.support.paths import ROOT

    return [Input(".dvc", (ROOT / "data.dvc").read_bytes())]


def _open_server() -> Read:
    from tests.fuzz.server import open_server

    return open_server()


def _messages() -> list[Input]:
    from tests.fuzz.server import messages, requests

    return requests() + messages()


def _message_bombs() -> Iterator[Input]:
    from tests.fuzz.server import message_bombs, request_bombs

    for pair in zip_longest(request_bombs(), message_bombs()):
        yield from filter(None, pair)


def _nothing() -> list[Input]:
    return []


_FACE_ARRAYS = ("images", "labels", "splits", "copied")
_SOFT_ARRAYS = ("probabilities", "faces", "changes", "teachers")
DOORS = {
    "table": Door(_open_data, seeds.tables, seeds.table_bombs, (*BYTES, *TEXT)),
    "archive": Door(_open_data, seeds.archives, seeds.archive_bombs, rewrite=_rewrite_archive, complete=True),
    "votes": Door(_open_votes, seeds.votes, seeds.vote_bombs, (*BYTES, *TEXT)),
    "parquet": Door(_open_data, seeds.parquets, seeds.parquet_bombs, complete=True),
    "shard": Door(_open_shards, seeds.archives, seeds.archive_bombs, rewrite=_rewrite_archive),
    # Its bombs are left out: a page of pictures may be large. The memory for it is limited.
    "parquet shard": Door(_open_shards, seeds.parquets, _nothing),
    "folder": Door(_open_data, seeds.folders, _nothing),
    "results": Door(_open_results, seeds.results, _nothing, TEXT),
    "params": Door(_open_params, seeds.params, seeds.setting_bombs, TEXT),
    "recipe": Door(_open_recipes, seeds.recipes, seeds.setting_bombs, TEXT),
    "report": Door(_open_reports, seeds.reports, seeds.report_bombs, TEXT),
    "pin": Door(_open_pins, _pins, seeds.report_bombs, TEXT),
    "picture": Door(_open_pictures, seeds.pictures, seeds.picture_bombs),
    "video": Door(_open_videos, seeds.videos, seeds.video_bombs, hang_s=10),
    "model": Door(_open_models, seeds.models, seeds.model_bombs),
    "faces": Door(
        _open_face_files, seeds.face_files, lambda: seeds.array_bombs(_FACE_ARRAYS), rewrite=mutations.rewrite_zip
    ),
    "soft labels": Door(
        _open_soft_labels,
        seeds.soft_label_files,
        lambda: seeds.array_bombs(_SOFT_ARRAYS),
        rewrite=mutations.rewrite_zip,
    ),
    "weights": Door(
        _open_weights, _weight_files, lambda: seeds.array_bombs(("arr_0", "arr_1")), rewrite=mutations.rewrite_zip
    ),
    "demo": Door(_open_server, _messages, _message_bombs, (*BYTES, *TEXT)),
}
