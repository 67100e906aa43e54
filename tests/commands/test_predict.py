"""The predict command reads pictures and videos and writes tables, annotations and figures, or reports one error."""

import csv
import json
import re
import signal
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support.paths import ROOT
from tests.support.versions import register_version
from tests.support.videos import write_video

from emotion_detection import cli
from emotion_detection.commands.predict import annotated_names
from emotion_detection.decoding.images import read_image
from emotion_detection.emotions import EMOTIONS
from emotion_detection.experiments import registry
from emotion_detection.inference import pretrained
from emotion_detection.inference.annotate import save_image
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.media import Video, open_video
from emotion_detection.inference.table import COLUMNS
from emotion_detection.synthetic.sample import draw_frame

# Drawn people whose faces the cascade detects: seeds of draw_frame.
PAIR = draw_frame(["happy", "neutral"], np.random.default_rng(6), width_px=640, height_px=320)[0]
ONE = draw_frame(["happy"], np.random.default_rng(0), width_px=320, height_px=240)[0]
EMPTY = np.full((240, 320, 3), 90, np.uint8)


def swaying(count, frame=PAIR):
    """Frames of a camera that shakes a little."""
    return (np.roll(frame, round(3 * np.sin(number / 5)), axis=1) for number in range(count))


def run(*arguments):
    """Run the command and return its exit status."""
    try:
        cli.main(["predict", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


@pytest.fixture(autouse=True)
def no_registry(tmp_path_factory, monkeypatch):
    """The checkout under test may have a registry."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('store') / 'absent.db'}")


def only_error(capsys):
    """The only line on stderr, which is an error, besides the name of the model."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("model: ")]
    assert line.startswith("error: ")
    return line


def read(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def photo(tmp_path):
    save_image(PAIR, tmp_path / "in" / "photo.png")
    return tmp_path / "in" / "photo.png"


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", swaying(20), fps=20)


def test_readings_of_a_picture_are_printed(photo, tmp_path, capsys):
    assert run(photo) == 0
    *faces, last = capsys.readouterr().out.splitlines()
    assert len(faces) == 2
    assert all(line.split()[0].rstrip("?") in EMOTIONS and line.endswith(" px") for line in faces)
    assert last.startswith("1 picture, 2 faces: ")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]  # no output was requested


def test_only_the_largest_face_is_read(photo, tmp_path, capsys):
    assert run(photo, "--faces", "largest", "--out", tmp_path / "r.csv") == 0
    assert capsys.readouterr().out.startswith("1 picture, 1 face: ")
    (row,) = read(tmp_path / "r.csv")
    assert tuple(row) == COLUMNS
    assert int(row["width"]) > 180


def test_picture_without_faces_is_not_an_error(tmp_path, capsys):
    save_image(EMPTY, tmp_path / "wall.png")
    save_image(EMPTY[:1, :1], tmp_path / "dot.png")
    assert run(tmp_path, "--out", tmp_path / "r.json", "--figure", tmp_path / "f.png") == 0
    assert capsys.readouterr().out == "2 pictures, 0 faces\n"
    assert json.loads((tmp_path / "r.json").read_text()) == []


def test_pictures_without_a_face_are_named(photo, capsys):
    for number in range(24):
        save_image(EMPTY, photo.parent / f"wall-{number:02}.png")
    assert run(photo.parent) == 0
    printed, errors = capsys.readouterr()
    assert printed.startswith("25 pictures, 2 faces: ")
    _, note = errors.splitlines()
    assert note.startswith(f"no face was found in 24 of 25 pictures: {photo.parent / 'wall-00.png'}, ")
    assert note.endswith(f"{photo.parent / 'wall-19.png'} and 4 more")


def test_crops_are_read_without_a_detector(drawn, tmp_path, capsys):
    for number, (face, side_px) in enumerate(zip(drawn.images, (48, 48, 96, 240), strict=False)):
        crop = cv2.resize(face, (side_px, side_px), interpolation=cv2.INTER_NEAREST)
        save_image(cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB), tmp_path / "in" / f"{number}.png")
    assert run(tmp_path / "in", "--crops", "--out", tmp_path / "r.csv") == 0
    assert capsys.readouterr().out.startswith("4 pictures, 4 faces: ")
    rows = read(tmp_path / "r.csv")
    assert [(row["left"], row["top"], row["width"], row["height"]) for row in rows] == [
        ("0", "0", side, side) for side in ("48", "48", "96", "240")
    ]
    expected = EmotionClassifier(pretrained.MODEL).probabilities(drawn.images[:4])
    read_probabilities = [[float(row[f"p_{emotion}"]) for emotion in EMOTIONS] for row in rows]
    np.testing.assert_allclose(read_probabilities, expected, atol=1e-3)  # scaled by whole numbers: nothing is lost


def test_crops_are_suggested_for_small_square_pictures_without_a_face(tmp_path, capsys):
    for number in range(3):
        save_image(EMPTY[:48, :48], tmp_path / f"{number}.png")
    assert run(tmp_path) == 0
    assert "use --crops" in capsys.readouterr().err
    assert run(tmp_path, "--crops") == 0
    assert "use --crops" not in capsys.readouterr().err


@pytest.mark.usefixtures("store")
def test_champion_reads_where_there_is_a_registry(photo, capsys):
    assert run(photo) == 0
    assert "model: the shipped model, because the registry does not contain" in capsys.readouterr().err
    pretrained.seed_registry()
    assert run(photo) == 0
    assert "model: models:/emotion-detection/1, the champion of the registry" in capsys.readouterr().err
    registry.set_alias(pretrained.MODEL_NAME, pretrained.ALIAS, register_version())
    assert run(photo) == 0
    assert "model: models:/emotion-detection/2, the champion of the registry" in capsys.readouterr().err
    assert run(photo, "--model", pretrained.MODEL) == 0
    assert f"model: {pretrained.MODEL}\n" in capsys.readouterr().err


def test_store_that_does_not_exist_is_not_created(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'absent.db'}")
    assert run(photo) == 0
    assert "model: the shipped model\n" in capsys.readouterr().err
    assert not (tmp_path / "absent.db").exists()


def test_unreachable_registry_is_named_and_the_shipped_model_reads(photo, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run(photo) == 0
    printed, errors = capsys.readouterr()
    assert "1 picture, 2 faces" in printed
    assert errors.startswith("model: the shipped model, because ")
    assert "http://127.0.0.1:1" in errors


def test_unreadable_pictures_of_a_folder_are_reported(photo, tmp_path, capfd):
    folder = photo.parent
    save_image(ONE, folder / "b" / "one.jpg")
    save_image(ONE, folder / "z.tif")
    (folder / "b" / "text.jpg").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "half.jpg").write_bytes((folder / "b" / "one.jpg").read_bytes()[:2000])
    (folder / "notes.txt").touch()
    out, drawn, figure = (tmp_path / name for name in ("r.parquet", "drawn", "bars.png"))
    assert run(folder, "--out", out, "--annotate", drawn, "--figure", figure) == 1
    printed, errors = capfd.readouterr()
    assert printed.startswith("3 pictures, 4 faces: ")
    names = [folder / name for name in ("empty.png", "half.jpg", "b/text.jpg")]
    assert [line.split(" is ")[0] for line in errors.splitlines()[1:]] == [f"error: {name}" for name in names]
    rows = pq.read_table(out).to_pylist()
    assert [row["source"] for row in rows] == [str(photo)] * 2 + [str(folder / "z.tif"), str(folder / "b" / "one.jpg")]
    written = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*"))
    assert written == ["b/one.jpg", "photo.png", "z.tif.png"]
    assert read_image(drawn / "photo.png").shape == PAIR.shape
    assert (read_image(drawn / "photo.png") != PAIR).any()
    assert cv2.imread(str(figure)) is not None


def test_annotated_pictures_may_be_in_a_subfolder_of_the_source(photo):
    assert run(photo.parent, "--annotate", photo.parent / "drawn") == 0
    assert len(list(photo.parent.rglob("*.png"))) == 2


@pytest.mark.parametrize(
    "names",
    [
        ["a.webp", "a.webp.png"],
        ["a.webp.png", "a.webp", "a.webp-2.png"],
        ["a.JPG", "a.jpg", "a-2.jpg"],
        ["a.jfif", "A.JFIF", "b/a.jfif"],
        ["a.bmp", "a.BMP", "a.bmp.PNG"],
        ["a.gif", "a.gif.png/b.png"],
        ["a.tif", "A.TIF.PNG/b.png", "a.tif.png/c.png"],
    ],
)
def test_annotated_pictures_have_different_names(names):
    names = [Path(name) for name in names]
    outputs = annotated_names(names)
    assert len({str(output).casefold() for output in outputs}) == len(names)
    assert dict(zip(names[::-1], annotated_names(names[::-1]), strict=True)).keys() == set(names)
    folders = {str(folder).casefold() for output in outputs for folder in output.parents}
    assert not folders & {str(output).casefold() for output in outputs}
    for name, output in zip(names, outputs, strict=True):
        assert output.parent == name.parent
        assert output.suffix.lower() == (name.suffix.lower() if name.suffix.lower() in (".jpg", ".jfif") else ".png")


def test_annotated_picture_keeps_its_name_or_gets_a_number():
    names = [Path(name) for name in ("a.webp", "a.webp.png", "b.jpg", "B.JPG", "c.tif")]
    outputs = [str(name) for name in annotated_names(names)]
    assert outputs == ["a.webp-2.png", "a.webp.png", "b.jpg", "B-2.JPG", "c.tif.png"]


def test_pictures_with_colliding_names_are_all_annotated(photo, tmp_path):
    folder = photo.parent
    for name in ("a.webp.png", "a.webp", "b.jpg", "b.JPG"):
        save_image(EMPTY if "JPG" in name or name == "a.webp" else ONE, folder / name)
    assert run(folder, "--annotate", tmp_path / "drawn") == 0
    output_names = {path.name for path in (tmp_path / "drawn").iterdir()}
    assert output_names == {"a.webp-2.png", "a.webp.png", "b.JPG", "b-2.jpg", "photo.png"}
    assert (read_image(tmp_path / "drawn" / "a.webp-2.png") == 90).all()
    assert (read_image(tmp_path / "drawn" / "a.webp.png") != 90).any()


def test_people_in_a_video_keep_their_tracks(clip, tmp_path, capsys):
    out, drawn, figure = (tmp_path / name for name in ("r.csv", "drawn.mp4", "timeline.png"))
    assert run(clip, "--out", out, "--annotate", drawn, "--figure", figure) == 0
    assert capsys.readouterr().out.startswith("20 frames, 40 faces: ")
    rows = read(out)
    order = [row["track"] for row in rows[:2]]  # from left to right
    assert sorted(order) == ["1", "2"]
    assert [(int(row["frame"]), row["track"]) for row in rows] == [(n, track) for n in range(20) for track in order]
    assert [float(row["time_s"]) for row in rows[::2]] == pytest.approx([n / 20 for n in range(20)], abs=2e-3)
    assert {row["source"] for row in rows} == {str(clip)}
    lefts = {track: {int(row["left"]) // 200 for row in rows if row["track"] == track} for track in "12"}
    assert lefts["1"].isdisjoint(lefts["2"])
    with open_video(drawn) as video:
        frames = [frame for _, frame in video]
    assert len(frames) == 20
    assert np.abs(frames[0].astype(int) - PAIR).max() > 100
    assert cv2.imread(str(figure)) is not None


def test_memory_does_not_grow_with_the_video(tmp_path):
    peaks = []
    for count in (5, 35):
        video = write_video(tmp_path / f"{count}.mp4", swaying(count, ONE))
        outputs = ("--out", tmp_path / f"{count}.parquet", "--annotate", tmp_path / f"drawn{count}.mp4")
        tracemalloc.start()
        assert run(video, *outputs, "--figure", tmp_path / f"{count}.png") == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 10 * ONE.nbytes  # of 30 frames


class Interrupted(Video):
    """Sends Ctrl-C to this process before its fourth frame."""

    def __iter__(self):
        for number, moment in enumerate(super().__iter__()):
            if number == 3:
                signal.raise_signal(signal.SIGINT)
            yield moment


def replace_video(monkeypatch, video, path, *, live):
    @contextmanager
    def opened(_):
        capture = cv2.VideoCapture(str(path))
        yield video(capture, "camera:0" if live else str(path), live=live)
        capture.release()

    monkeypatch.setattr("emotion_detection.commands.predict.open_video", opened)


@pytest.fixture
def ctrl_c():
    """Python's handler of Ctrl-C. In a background process of a shell, Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_a_camera_and_keeps_the_readings(clip, tmp_path, monkeypatch, capsys, ctrl_c):  # noqa: ARG001
    replace_video(monkeypatch, Interrupted, clip, live=True)
    before = signal.getsignal(signal.SIGINT)
    outputs = ("--out", tmp_path / "r.csv", "--annotate", tmp_path / "a.webm", "--figure", tmp_path / "t.png")
    assert run("camera:0", *outputs) == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert capsys.readouterr().out.startswith("4 frames, 8 faces: ")
    assert [row["frame"] for row in read(tmp_path / "r.csv")] == [str(number) for number in range(4) for _ in "12"]
    with open_video(tmp_path / "a.webm") as video:
        assert list(video)


def test_ctrl_c_during_a_video_leaves_no_files(clip, tmp_path, monkeypatch, capsys, ctrl_c):  # noqa: ARG001
    replace_video(monkeypatch, Interrupted, clip, live=False)
    assert run(clip, "--out", tmp_path / "r.csv", "--annotate", tmp_path / "a.mp4") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted; nothing was written"
    assert list(tmp_path.iterdir()) == [clip]


def test_readings_are_kept_when_a_camera_stops(clip, tmp_path, monkeypatch, capsys):
    replace_video(monkeypatch, Video, clip, live=True)
    assert run("camera:0", "--out", tmp_path / "r.csv") == 1
    assert "camera:0 sends no more frames" in only_error(capsys)
    assert len(read(tmp_path / "r.csv")) == 40


def test_readings_of_a_truncated_video_are_kept(tmp_path, capfd):
    path = write_video(tmp_path / "v.avi", swaying(10))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run(path, "--out", tmp_path / "r.csv") == 1
    assert re.search(r"v\.avi: \d of 10 frames could be read", only_error(capfd))
    assert len(read(tmp_path / "r.csv")) >= 6


def test_existing_outputs_are_not_overwritten(photo, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    for name in ("r.csv", "full/notes.txt", "f.png"):
        (tmp_path / name).write_text("mine")
    for option, name in (("--out", "r.csv"), ("--annotate", "full"), ("--figure", "f.png")):
        assert run(photo, option, tmp_path / name) == 1
        assert "already exists" in only_error(capsys)
    assert {(tmp_path / name).read_text() for name in ("r.csv", "full/notes.txt", "f.png")} == {"mine"}
    (tmp_path / "empty").mkdir()
    assert run(photo, "--annotate", tmp_path / "empty") == 0
    assert [file.name for file in (tmp_path / "empty").iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("in", ["--annotate", "a.mp4"], "pictures are written to a folder"),
        ("in", ["--annotate", "a.png"], "pictures are written to a folder"),
        ("in", ["--figure", "f.jpg"], "is not a .png file"),
        ("in", ["--out", "r.xlsx"], "use one of the suffixes .csv"),
        ("in", ["--out", "in/photo.png/r.csv"], "cannot be written"),
        ("in", ["--model", "absent.onnx"], "absent.onnx"),
        ("in", ["--model", "in/photo.png"], "photo.png"),
        ("in", ["--detector", "absent.onnx"], "absent.onnx"),
        ("in", ["--crops", "--detector", "haar"], "omit one of the two"),
        ("clip.mp4", ["--crops"], "clip.mp4 is a video: omit --crops"),
        ("clip.mp4", ["--annotate", "folder"], "is not an .mp4"),
        ("absent.jpg", [], "does not exist"),
        ("none", [], "contains no images"),
        ("text.jpg", [], "not a readable image"),
        ("text.txt", [], "not a known image or video format"),
        ("empty.mp4", [], "not a readable video"),
        ("text.mp4", [], "not a readable video"),
        ("camera:99", [], "connect the camera"),
        ("camera:", [], "use camera:0"),
    ],
)
def test_mistake_is_one_error_and_leaves_no_files(source, options, message, photo, clip, monkeypatch, capfd):
    monkeypatch.chdir(clip.parent)
    folder = clip.parent
    (folder / "none").mkdir()
    (folder / "empty.mp4").touch()
    for name in ("text.jpg", "text.txt", "text.mp4"):
        (folder / name).write_text("a line of text\n" * 999)
    before = sorted(folder.rglob("*"))
    outputs = [] if "--out" in options else ["--out", "r.csv"]
    assert run(source, *options, *outputs) == 1
    assert message in only_error(capfd)
    assert sorted(folder.rglob("*")) == before
    assert photo.exists()


def test_missing_matplotlib_is_reported(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("plotting.style", "inference.timeline"):  # other tests may have imported them
        monkeypatch.delitem(sys.modules, f"emotion_detection.{name}", raising=False)
    monkeypatch.delattr("emotion_detection.inference.timeline", raising=False)
    assert run(photo, "--out", tmp_path / "r.csv", "--figure", tmp_path / "f.png") == 1
    assert "pip install matplotlib" in only_error(capsys)
    assert not (tmp_path / "r.csv").exists()


def test_no_training_library_is_loaded(photo):
    code = "import sys; from emotion_detection.cli import main; main(['predict', *sys.argv[1:]]); print(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", code, photo], capture_output=True, text=True, check=True)
    loaded = set(process.stdout.splitlines()[-1].split())
    assert "onnxruntime" in loaded
    assert not loaded & {"tensorflow", "keras", "mlflow", "matplotlib", "pyarrow", "sklearn", "scipy", "pydantic"}


def test_module_is_a_command(photo):
    process = subprocess.run(
        [sys.executable, "-m", "emotion_detection.predict", photo], capture_output=True, text=True, check=True
    )
    assert process.stdout.splitlines()[-1].startswith("1 picture, 2 faces: ")
    assert process.stderr == "model: the shipped model\n"


def test_help_lists_the_options(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(
        option in text for option in ("--out", "--annotate", "--figure", "--model", "--detector", "--faces", "--crops")
    )
    assert "a-2.png" in text
    assert "models:/NAME@ALIAS" in text


def test_examples_of_the_readme_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text()
    pattern = r"^(?:python -m emotion_detection\.predict|emotion-detection predict) (.*)$"
    commands = re.findall(pattern, readme, re.MULTILINE)
    snippets = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    save_image(PAIR, tmp_path / "holiday" / "photo.png")
    save_image(PAIR, tmp_path / "group.jpg")
    write_video(tmp_path / "film.mp4", swaying(12))
    assert len(commands) == 2
    for command in commands:
        assert run(*command.split()) == 0
        assert capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} >= {"drawn", "film.webm", "timeline.png"}
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
        output = capsys.readouterr().out
        assert any(emotion in output for emotion in EMOTIONS)
