"""The registered model in MLflow's own tools: faces and encoded pictures, from Python and over HTTP."""

import base64
import json
import sys
from io import BytesIO

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from PIL import Image

from emotion_detection import Recognizer
from emotion_detection.emotions import EMOTIONS
from emotion_detection.experiments.registry import SERVED_MODEL, SIGNATURE
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.pretrained import MODEL
from emotion_detection.synthetic.sample import draw_faces


@pytest.fixture(scope="module")
def faces():
    """Drawn faces, uint8 (7, 48, 48)."""
    return draw_faces(per_class=1, seed=3)[0]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, faces):
    path = tmp_path_factory.mktemp("served") / "model"
    mlflow.pyfunc.save_model(
        path,
        python_model=str(SERVED_MODEL),
        artifacts={"model": str(MODEL)},
        signature=SIGNATURE,
        input_example=faces[..., np.newaxis],
        pip_requirements=["mlflow"],
    )
    return mlflow.pyfunc.load_model(str(path))


@pytest.fixture(scope="module")
def photo(faces):
    """A JPEG with two faces of different sizes."""
    picture = Image.new("L", (640, 480), 128)
    picture.paste(Image.fromarray(faces[3]).resize((150, 150)), (30, 100))
    picture.paste(Image.fromarray(faces[5]).resize((260, 260)), (330, 100))
    stream = BytesIO()
    picture.save(stream, "JPEG")
    return stream.getvalue()


def test_pictures_get_the_readings_of_the_recognizer(loaded, photo):
    (row,) = loaded.predict(pd.DataFrame({"image": [photo]})).to_dict("records")
    expected = Recognizer.load().recognize(photo)
    assert len(expected) == 2
    boxes = [[one.box.left, one.box.top, one.box.width, one.box.height] for one in expected]
    assert [face["box"] for face in row["faces"]] == boxes
    assert [face["emotion"] for face in row["faces"]] == [one.emotion for one in expected]
    assert [face["unsure"] for face in row["faces"]] == [one.unsure for one in expected]
    for face, one in zip(row["faces"], expected, strict=True):
        np.testing.assert_allclose(face["probabilities"], one.probabilities, atol=1e-6)
    largest = max(expected, key=lambda one: one.box.width)
    np.testing.assert_allclose([row[emotion] for emotion in EMOTIONS], largest.probabilities, atol=1e-6)
    assert row["error"] == ""


def test_crops_have_the_same_probabilities_as_an_array_and_as_bytes(loaded, faces):
    expected = EmotionClassifier(MODEL).probabilities(faces)
    answers = loaded.predict(faces[..., np.newaxis])
    assert all(tuple(answer) == EMOTIONS for answer in answers)
    np.testing.assert_allclose([list(answer.values()) for answer in answers], expected, atol=1e-6)
    table = loaded.predict(pd.DataFrame({"image": [face.tobytes() for face in faces]}))
    np.testing.assert_allclose(table[list(EMOTIONS)], expected, atol=1e-6)
    assert [row[0]["box"] for row in table["faces"]] == [[0, 0, 48, 48]] * len(faces)


def test_unreadable_picture_has_a_reason_and_the_others_are_read(loaded, photo):
    cells = [b"no picture", "no base64!", None, photo[:2000], base64.b64encode(photo).decode(), photo]
    table = loaded.predict(pd.DataFrame({"image": cells, "name": list("abcdef")}))
    assert [bool(error) for error in table["error"]] == [True, True, True, True, False, False]
    assert [len(found) for found in table["faces"]] == [0, 0, 0, 0, 2, 2]
    assert table.loc[:3, "happy"].isna().all()
    assert "base64" in table.loc[1, "error"]
    assert "truncated" in table.loc[3, "error"]


def test_column_may_begin_with_a_null(loaded, photo, faces):
    table = loaded.predict({"image": np.array([float("nan"), None, photo], object)})
    assert [bool(error) for error in table["error"]] == [True, True, False]
    model = loaded.unwrap_python_model()
    table = model.predict(None, pd.DataFrame({"image": [None, bytearray(faces[0].tobytes())]}))
    assert [len(found) for found in table["faces"]] == [0, 1]
    assert len(model.predict(None, pd.DataFrame({"image": []}, dtype=object))) == 0


def test_error_without_a_text_is_named(loaded, photo, monkeypatch):
    class Full:
        def recognize(self, _):
            raise MemoryError

    monkeypatch.setattr(loaded.unwrap_python_model(), "_recognizer", Full())
    assert loaded.predict(pd.DataFrame({"image": [photo]})).loc[0, "error"] == "MemoryError"


def test_picture_with_as_many_bytes_as_a_crop_is_decoded(loaded, faces):
    stream = BytesIO()
    Image.fromarray(faces[0]).save(stream, "PNG")
    png = stream.getvalue()
    padded = png + bytes(48 * 48 - len(png))
    assert len(padded) == 48 * 48
    table = loaded.predict(pd.DataFrame({"image": [padded]}))
    assert table.loc[0, "error"] == ""
    assert [0, 0, 48, 48] not in [face["box"] for face in table.loc[0, "faces"]]  # so a face was searched


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 48, 48, 1)), np.full((1, 48, 48, 1), 256), np.zeros((2, 40, 40, 1), np.uint8)]
)
def test_wrong_faces_are_refused_with_a_sentence(loaded, wrong):
    with pytest.raises(MlflowException, match=r"whole numbers from 0 to 255|pass \(n, 48, 48, 1\)"):
        loaded.predict(wrong)


def test_input_example_is_accepted(loaded, faces):
    assert len(loaded.predict(loaded.input_example)) == len(faces)


def test_pictures_without_the_package_are_refused_with_a_sentence(loaded, photo, monkeypatch):
    model = loaded.unwrap_python_model()
    monkeypatch.setattr(model, "_recognizer", None)
    monkeypatch.setitem(sys.modules, "emotion_detection", None)
    with pytest.raises(MlflowException, match="need the package emotion-detection"):
        loaded.predict(pd.DataFrame({"image": [photo]}))


def post(loaded, body):
    client = TestClient(scoring_server.init(loaded))
    answer = client.post("/invocations", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def test_mlflow_server_takes_pictures_and_crops(loaded, photo, faces):
    text = base64.b64encode(photo).decode()
    for body in (
        {"dataframe_split": {"columns": ["image"], "data": [[text]]}},
        {"dataframe_records": [{"image": text}]},
        {"inputs": [text]},
        {"instances": [{"image": text}]},
    ):
        (row,) = post(loaded, body)
        assert len(row["faces"]) == 2, body
    expected = EmotionClassifier(MODEL).probabilities(faces)
    numbers = faces[..., np.newaxis].tolist()
    for body in ({"inputs": numbers}, {"instances": numbers}, {"instances": [{"image": face} for face in numbers]}):
        answers = post(loaded, body)
        np.testing.assert_allclose([list(answer.values()) for answer in answers], expected, atol=1e-6)
