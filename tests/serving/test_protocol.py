"""The Open Inference Protocol: metadata, tensors as JSON and as bytes, and every kind of wrong request."""

import base64
import json
import struct

import numpy as np
import pytest
from tests.serving.conftest import connected
from tests.support.onnx_files import write_linear

from emotion_detection.emotions import EMOTIONS
from emotion_detection.inference.classifier import EmotionClassifier
from emotion_detection.inference.pretrained import MODEL
from emotion_detection.inference.recognizer import Recognizer
from emotion_detection.serving.settings import Limits

FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 1), np.uint8)
INFER = "/v2/models/emotion-detection/infer"
FIND = "/v2/models/faces/infer"
HEADER = "Inference-Header-Content-Length"


def tensor(faces=FACES, **changes) -> dict:
    described = {"name": "faces", "shape": list(faces.shape), "datatype": "UINT8", "data": faces.ravel().tolist()}
    return {key: value for key, value in (described | changes).items() if value is not None}


def request(**changes) -> dict:
    return {"inputs": [tensor()]} | changes


def outputs(answer) -> dict:
    """The outputs of an answer in JSON, as arrays in their shapes."""
    assert answer.status_code == 200, answer.text
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer.json()["outputs"]}


def binary(head: dict, *chunks: bytes, declared: str | None = None) -> dict:
    """The arguments of a request with bytes after its JSON."""
    text = json.dumps(head).encode()
    return {"content": text + b"".join(chunks), "headers": {HEADER: declared or str(len(text))}}


def prefixed(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


# Health and metadata


def test_health_and_server_metadata(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    about = client.get("/v2").json()
    assert set(about) == {"name", "version", "extensions"}
    assert about["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("model", ["emotion-detection", "faces"])
def test_model_metadata_names_the_version_and_every_tensor(client, model):
    about = client.get(f"/v2/models/{model}").json()
    assert about["name"] == model
    (version,) = about["versions"]
    assert about["parameters"]["sha256"].startswith(version)
    assert about["parameters"]["source"] == "model.onnx"  # without the folder
    for one in (*about["inputs"], *about["outputs"]):
        assert set(one) == {"name", "datatype", "shape"}
        assert one["shape"][0] == -1
    assert client.get(f"/v2/models/{model}/versions/{version}").json() == about
    for path in (f"/v2/models/{model}/ready", f"/v2/models/{model}/versions/{version}/ready"):
        assert client.get(path).json() == {"name": model, "ready": True}


@pytest.mark.parametrize("path", ["", "/ready", "/versions/9", "/versions/9/ready"])
def test_unknown_model_and_version_are_not_found(client, path):
    model = "emotion-detection" if "versions" in path else "other"
    answer = client.get(f"/v2/models/{model}{path}")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
    posted = client.post(f"/v2/models/{model}{path.removesuffix('/ready')}/infer", json=request())
    assert posted.status_code == 404


def test_service_without_a_model_is_alive_but_not_ready(monkeypatch):
    monkeypatch.setattr("emotion_detection.serving.served_model.ServedModel.follow", lambda *_, **__: None)
    with connected(model="models:/emotion-detection@champion") as client:
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/models/emotion-detection/ready").status_code == 503
        answer = client.post(INFER, json=request())
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert client.get("/").json()["model"] is None


# Faces


def test_answer_is_what_the_classifier_returns(client):
    answer = client.post(INFER, json=request(id="a 1"))
    expected = EmotionClassifier(MODEL).probabilities(FACES[..., 0])
    np.testing.assert_allclose(outputs(answer)["probabilities"], expected, atol=1e-6)
    assert outputs(answer)["emotion"].tolist() == [EMOTIONS[row.argmax()] for row in expected]
    content = answer.json()
    assert (content["id"], content["model_name"]) == ("a 1", "emotion-detection")
    assert content["parameters"]["sha256"].startswith(content["model_version"])
    assert [one["datatype"] for one in content["outputs"]] == ["FP32", "BYTES", "BOOL"]


def test_id_is_not_invented(client):
    assert "id" not in client.post(INFER, json=request()).json()


def test_nested_and_flat_data_are_equal(client):
    nested = client.post(INFER, json={"inputs": [tensor(data=FACES.tolist())]})
    assert nested.json()["outputs"] == client.post(INFER, json=request()).json()["outputs"]


def test_no_face_is_no_error(client):
    found = outputs(client.post(INFER, json={"inputs": [tensor(FACES[:0])]}))
    assert found["probabilities"].shape == (0, 7)


def test_version_in_the_path_is_that_of_the_answer(client):
    (version,) = client.get("/v2/models/emotion-detection").json()["versions"]
    answer = client.post(f"/v2/models/emotion-detection/versions/{version}/infer", json=request())
    assert answer.json()["model_version"] == version


def test_only_the_wanted_outputs_are_sent_in_their_order(client):
    answer = client.post(INFER, json=request(outputs=[{"name": "unsure"}, {"name": "emotion"}]))
    assert [one["name"] for one in answer.json()["outputs"]] == ["unsure", "emotion"]


def test_unknown_parameters_are_ignored(client):
    answer = client.post(INFER, json=request(parameters={"priority": 1, "who": "me"}))
    assert answer.status_code == 200


def test_binary_tensors_in_both_directions(client):
    inputs = [tensor(data=None, parameters={"binary_data_size": FACES.nbytes})]
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("emotion", "probabilities", "unsure")]
    answer = client.post(INFER, **binary({"inputs": inputs, "outputs": wanted}, FACES.tobytes()))
    assert answer.headers["content-type"] == "application/octet-stream"
    size = int(answer.headers[HEADER])
    head, rest = json.loads(answer.content[:size]), answer.content[size:]
    sizes = [one["parameters"]["binary_data_size"] for one in head["outputs"]]
    assert sum(sizes) == len(rest)
    expected = EmotionClassifier(MODEL).probabilities(FACES[..., 0])
    assert rest[: sizes[0]] == prefixed(*[EMOTIONS[row.argmax()].encode() for row in expected])
    sent = np.frombuffer(rest[sizes[0] : -3], "<f4").reshape(3, 7)
    np.testing.assert_allclose(sent, expected, atol=1e-6)
    assert set(rest[-3:]) <= {0, 1}


def test_one_output_may_be_json_although_the_others_are_binary(client):
    wanted = [{"name": "emotion", "parameters": {"binary_data": False}}, {"name": "unsure"}]
    answer = client.post(INFER, json=request(parameters={"binary_data_output": True}, outputs=wanted))
    head = json.loads(answer.content[: int(answer.headers[HEADER])])
    assert len(head["outputs"][0]["data"]) == 3
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 3}


# Pictures


@pytest.mark.parametrize("as_json", [True, False])
def test_faces_are_found_in_pictures(client, photo, as_json):
    described = {"name": "pictures", "datatype": "BYTES", "shape": [2]}
    if as_json:
        data = [base64.b64encode(photo).decode()] * 2
        answer = client.post(FIND, json={"inputs": [described | {"data": data}]})
    else:
        content = prefixed(photo, photo)
        inputs = [described | {"parameters": {"binary_data_size": len(content)}}]
        answer = client.post(FIND, **binary({"inputs": inputs}, content))
    found, readings = outputs(answer), Recognizer.load().recognize(photo)
    assert len(readings) == 2
    assert found["picture"].tolist() == [0, 0, 1, 1]
    assert found["box"][:2].tolist() == [reading.as_dict()["box"] for reading in readings]
    np.testing.assert_allclose(found["probabilities"][2:], [one.probabilities for one in readings], atol=1e-5)


def test_unreadable_picture_is_named(client, photo):
    content = prefixed(photo, b"no picture")
    inputs = [{"name": "pictures", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(content)}}]
    answer = client.post(FIND, **binary({"inputs": inputs}, content))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("picture 2 of 2 is not a readable image")


# Wrong requests

SIZE = {"binary_data_size": FACES.nbytes}
WRONG = {
    "no JSON": b"{",
    "no object": b"[]",
    "nothing": b"",
    "no inputs": {"inputs": []},
    "id that is no text": request(id=1),
    "parameters that are no object": request(parameters=[]),
    "parameter that is a list": request(parameters={"a": []}),
    "no name": {"inputs": [tensor(name=None)]},
    "unknown name": {"inputs": [tensor(name="Faces")]},
    "name that is no text": {"inputs": [tensor(name=3)]},
    "two inputs of one name": {"inputs": [tensor(), tensor()]},
    "further input": {"inputs": [tensor(), tensor(name="more")]},
    "unknown datatype": {"inputs": [tensor(datatype="uint8")]},
    "other datatype": {"inputs": [tensor(datatype="FP32")]},
    "shape without a channel": {"inputs": [tensor(shape=[3, 48, 48])]},
    "shape of another size": {"inputs": [tensor(shape=[3, 64, 36, 1])]},
    "shape that is not the data's": {"inputs": [tensor(shape=[4, 48, 48, 1])]},
    "negative shape": {"inputs": [tensor(shape=[-3, 48, 48, 1])]},
    "negative shape twice": {"inputs": [tensor(shape=[3, -48, -48, 1])]},
    "shape with a fraction": {"inputs": [tensor(shape=[3.0, 48, 48, 1])]},
    "shape with true": {"inputs": [tensor(shape=[3, 48, 48, True])]},
    "shape that is no list": {"inputs": [tensor(shape=3)]},
    "shape of many dimensions": {"inputs": [tensor(shape=[1] * 5000)]},
    "too little data": {"inputs": [tensor(data=[1] * 2304)]},
    "no data": {"inputs": [tensor(data=None)]},
    "data that are text": {"inputs": [tensor(data="x" * FACES.size)]},
    "texts": {"inputs": [tensor(shape=[1, 48, 48, 1], data=["1"] * 2304)]},
    "fractions": {"inputs": [tensor(data=[0.5] * FACES.size)]},
    "true": {"inputs": [tensor(data=[True] * FACES.size)]},
    "null": {"inputs": [tensor(data=[None] * FACES.size)]},
    "objects": {"inputs": [tensor(data=[{}] * FACES.size)]},
    "256": {"inputs": [tensor(data=[256] * FACES.size)]},
    "-1": {"inputs": [tensor(data=[-1] * FACES.size)]},
    "a large number": {"inputs": [tensor(data=[10**400] * FACES.size)]},
    "nested in another shape": {"inputs": [tensor(data=FACES.reshape(48, 3, 48).tolist())]},
    "ragged": {"inputs": [tensor(data=[*FACES.tolist()[:2], [1] * 2304])]},
    "NaN": json.dumps(request()).replace(f"[{FACES.flat[0]},", "[NaN,", 1).encode(),
    "unknown output": request(outputs=[{"name": "other"}]),
    "repeated output": request(outputs=[{"name": "emotion"}] * 2),
    "output without a name": request(outputs=[{}]),
    "binary_data that is no bool": request(outputs=[{"name": "emotion", "parameters": {"binary_data": 1}}]),
    "classification": request(outputs=[{"name": "emotion", "parameters": {"classification": 2}}]),
    "shared memory": {"inputs": [tensor(parameters={"shared_memory_region": "a"})]},
    "size without bytes": {"inputs": [tensor(data=None, parameters=SIZE)]},
    "size and data": {"inputs": [tensor(parameters=SIZE)]},
    "long ID": request() | {"id": "a" * 1001},
    "text that is not UTF-8": b'{"id": "\xff", "inputs": []}',
    "name that is not UTF-8": json.dumps(request()).encode().replace(b'"faces"', b'"\xff\xfe"'),
    "half a surrogate": json.dumps(request()).encode().replace(b'"faces"', b'"\\ud800"'),
    "deep nesting": b'{"inputs": ' + b"[" * 100_000,
    "deep nesting of data": json.dumps({"inputs": [tensor(data=[])]})
    .encode()
    .replace(b"[]", b"[" * 9000 + b"]" * 9000),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_request_is_refused_with_a_sentence(client, wrong):
    content = wrong if isinstance(wrong, bytes) else json.dumps(wrong).encode()
    answer = client.post(INFER, content=content)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert answer.json()["error"].endswith(".")
    assert len(answer.json()["error"]) < 600


ONE = tensor(data=None, parameters=SIZE)
WRONG_BYTES = {
    "header that is no number": binary({"inputs": [ONE]}, FACES.tobytes(), declared="many"),
    "negative header": binary({"inputs": [ONE]}, FACES.tobytes(), declared="-1"),
    "header beyond the body": binary({"inputs": [ONE]}, FACES.tobytes(), declared="999999"),
    "large header": binary({"inputs": [ONE]}, FACES.tobytes(), declared="9" * 5000),
    "header of 0": binary({"inputs": [ONE]}, FACES.tobytes(), declared="0"),
    "too few bytes": binary({"inputs": [ONE]}, FACES.tobytes()[:-1]),
    "too many bytes": binary({"inputs": [ONE]}, FACES.tobytes() + b"x"),
    "size that is too small": binary({"inputs": [ONE | {"parameters": {"binary_data_size": 5}}]}, bytes(5)),
    "size that is too large": binary({"inputs": [ONE | {"parameters": {"binary_data_size": 2**63}}]}, FACES.tobytes()),
    "negative size": binary({"inputs": [ONE | {"parameters": {"binary_data_size": -1}}]}, FACES.tobytes()),
    "size with a fraction": binary({"inputs": [ONE | {"parameters": {"binary_data_size": 6912.0}}]}, FACES.tobytes()),
    "size that is true": binary({"inputs": [ONE | {"parameters": {"binary_data_size": True}}]}, b"1"),
    "bytes that belong to nothing": binary({"inputs": [tensor()]}, b"rest"),
}


@pytest.mark.parametrize("wrong", WRONG_BYTES.values(), ids=WRONG_BYTES)
def test_lying_sizes_are_refused(client, wrong):
    answer = client.post(INFER, **wrong)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (struct.pack("<I", 2**32 - 1) + b"short", 1),
        (prefixed(b"one"), 2),
        (prefixed(b"one", b"two"), 1),
        (prefixed(b"one") + b"xx", 1),
        (prefixed(*[b""] * 1000), 2),
        (b"", 1),
    ],
)
def test_lying_sizes_of_elements_are_refused(client, content, count):
    described = {"name": "pictures", "datatype": "BYTES", "shape": [count]}
    inputs = [described | {"parameters": {"binary_data_size": len(content)}}]
    assert client.post(FIND, **binary({"inputs": inputs}, content)).status_code == 400


@pytest.mark.parametrize("data", [["%"], [1], [None], ["é"], [["aa=="]], ["aa=="] * 3])
def test_wrong_base64_is_refused(client, data):
    inputs = [{"name": "pictures", "datatype": "BYTES", "shape": [1], "data": data}]
    assert client.post(FIND, json={"inputs": inputs}).status_code == 400


def test_huge_shape_with_little_data_reserves_nothing(client):
    answer = client.post(INFER, json={"inputs": [tensor(shape=[10**12, 48, 48, 1], data=[1])]})
    assert (answer.status_code, "at most 256" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("value", [b"0,", b"[],", b'{"a":0},', b'"a",'])
def test_json_with_too_many_values_is_not_parsed(client, value):
    content = b'{"inputs": [' + value * 1_000_000 + b"0]}"
    answer = client.post(INFER, content=content)
    assert (answer.status_code, "too many values" in answer.json()["error"]) == (413, True)


def test_too_many_faces_and_pictures_are_refused(photo):
    with connected(Limits(threads=1, faces=2, pictures=1)) as client:
        assert client.post(INFER, json=request()).status_code == 413
        content = prefixed(photo, photo)
        described = {"name": "pictures", "datatype": "BYTES", "shape": [2]}
        inputs = [described | {"parameters": {"binary_data_size": len(content)}}]
        assert client.post(FIND, **binary({"inputs": inputs}, content)).status_code == 413


def test_broken_model_is_not_the_clients_fault(tmp_path, caplog):
    broken = write_linear(tmp_path / "model.onnx", weight=1.0)
    with connected(model=str(broken)) as client:
        service = client.app_state["service"]
        service.served.current.classifier._session = None
        answer = client.post(INFER, json=request())
    assert answer.status_code == 500
    assert "log names the error" in answer.json()["error"]
    assert "/v2/models/{model}/infer failed" in caplog.text
