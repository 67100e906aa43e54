"""POST /v1/recognize: one picture or several, and readings as `emotion-detection predict` writes them."""

import json
import tempfile

import pytest
from tests.serving.conftest import connected
from tests.support import pictures

from emotion_detection import cli
from emotion_detection.inference.pretrained import MODEL
from emotion_detection.inference.table import COLUMNS
from emotion_detection.serving.plain_api import ReadingRow
from emotion_detection.serving.settings import Limits

PATH = "/v1/recognize"


def file(name: str, content: bytes) -> tuple[str, tuple[str, bytes]]:
    return "pictures", (name, content)


def test_readings_are_those_of_the_predict_command(client, photo, tmp_path):
    (tmp_path / "a.jpg").write_bytes(photo)
    table = tmp_path / "readings.json"
    cli.main(["predict", str(tmp_path / "a.jpg"), "--out", str(table), "--model", str(MODEL)])
    expected = json.loads(table.read_text())
    assert len(expected) == 2
    answer = client.post(PATH, files=[file("a.jpg", photo)]).json()
    assert answer["readings"] == [row | {"source": "a.jpg"} for row in expected]
    assert answer["pictures"] == [{"source": "a.jpg", "width": 640, "height": 480, "faces": 2}]
    assert answer["errors"] == []


def test_documented_columns_are_those_of_the_table():
    assert tuple(ReadingRow.model_fields) == COLUMNS


def test_answer_names_the_model(client, photo):
    answer = client.post(PATH, content=photo).json()
    assert answer["model"] == "emotion-detection"
    assert len(answer["sha256"]) == 64
    assert answer["sha256"].startswith(answer["version"])


@pytest.mark.parametrize("kind", [None, "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded"])
def test_body_may_be_the_picture(client, photo, kind):
    answer = client.post(PATH, content=photo, headers={"content-type": kind} if kind else {}).json()
    assert [row["source"] for row in answer["readings"]] == ["picture"] * 2


def test_options_are_those_of_the_predict_command(client, photo):
    assert len(client.post(f"{PATH}?faces=largest", content=photo).json()["readings"]) == 1
    (row,) = client.post(f"{PATH}?crops=true", content=photo).json()["readings"]
    assert [row[key] for key in ("left", "top", "width", "height")] == [0, 0, 640, 480]


def test_other_pictures_are_read_if_one_is_damaged(client, photo):
    answer = client.post(PATH, files=[file("bad.jpg", photo[:5000]), file("good.jpg", photo)])
    assert answer.status_code == 200
    assert [one["source"] for one in answer.json()["pictures"]] == ["good.jpg"]
    (failure,) = answer.json()["errors"]
    assert failure["source"] == "bad.jpg"
    assert "damaged or truncated" in failure["error"]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 422), (b"no picture", 422), (pictures.png(1 << 15, 1 << 15), 413), (pictures.large_avif(), 413)],
    ids=["empty", "text", "large PNG", "large AVIF"],
)
def test_picture_that_cannot_be_read_is_refused(client, content, status):
    for answer in (client.post(PATH, content=content), client.post(PATH, files=[file("a.png", content)])):
        assert (answer.status_code, list(answer.json())) == (status, ["error"])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"picture": "a.jpg"}}, 415),
        ({"data": {"url": "http://127.0.0.1/"}, "files": [("a", ("a.jpg", b"x"))]}, 400),
        ({"content": b"--x\r\n\r\nabc\r\n--x--", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"--x--\r\n", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary=" + "x" * 1000}}, 400),
        ({"params": {"faces": "some"}}, 422),
        ({"params": {"crops": "perhaps"}}, 422),
        ({"headers": {"content-encoding": "gzip"}, "content": b"x"}, 415),
    ],
)
def test_wrong_request_is_refused_with_a_sentence(client, sent, status):
    answer = client.post(PATH, **sent)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].endswith(".")


def test_too_many_pictures_and_faces_are_refused(photo):
    with connected(Limits(threads=1, pictures=2, faces=1)) as client:
        answer = client.post(PATH, files=[file(f"{number}.jpg", photo) for number in range(3)])
        assert (answer.status_code, "at most 2" in answer.json()["error"]) == (413, True)
        answer = client.post(PATH, content=photo)
        assert (answer.status_code, "more than 1 faces" in answer.json()["error"]) == (413, True)


def test_large_picture_is_never_written_to_a_disk(client, monkeypatch):
    def refuse(_: tempfile.SpooledTemporaryFile) -> None:
        raise AssertionError("a picture was written to a disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    content = pictures.bmp(1000, 1000, data=bytes(3_000_000))
    assert client.post(PATH, files=[file("a.bmp", content)]).status_code == 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "C:\\faces\\passwd", "passwd"])
def test_source_is_the_name_without_its_folders(client, photo, name):
    answer = client.post(PATH, files=[file(name, photo)])
    assert {row["source"] for row in answer.json()["readings"]} == {"passwd"}


def test_name_with_control_characters_is_harmless(client, photo):
    head = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a\x1b[2J\xff.jpg"\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post(PATH, content=head + photo + b"\r\n--x--\r\n", headers=kind)
    assert answer.status_code == 200
    assert "\x1b" not in answer.json()["pictures"][0]["source"]
