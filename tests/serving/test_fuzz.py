"""Damaged requests of all kinds: each one gets a sentence or an answer, and none is a failure of the service."""

import json
from random import Random

import pytest
from tests.fuzz.mutations import BYTES, TEXT
from tests.serving.test_protocol import FACES, FIND, HEADER, INFER, binary, prefixed, request, tensor

ANSWERS = {200, 400, 404, 405, 408, 411, 413, 414, 415, 422}
COUNT = 60  # of each kind


def requests(photo: bytes) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Valid requests: the path, the body and the headers."""
    inputs = [tensor(data=None, parameters={"binary_data_size": FACES.nbytes})]
    faces = binary({"id": "1", "inputs": inputs, "outputs": [{"name": "emotion"}]}, FACES.tobytes())
    content = prefixed(photo, photo[:900])
    inputs = [{"name": "pictures", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(content)}}]
    found = binary({"inputs": inputs}, content)
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    form = part + photo[:2000] + b"\r\n" + part + photo[:100] + b"\r\n--x--\r\n"
    small = json.dumps(request(id="a", parameters={"binary_data_output": True}, outputs=[{"name": "unsure"}])).encode()
    return {
        "JSON": (INFER, small, {}),
        "bytes": (INFER, faces["content"], faces["headers"]),
        "pictures": (FIND, found["content"], found["headers"]),
        "form": ("/v1/recognize", form, {"content-type": "multipart/form-data; boundary=x"}),
        "raw": ("/v1/recognize?crops=1", photo, {}),
    }


@pytest.mark.parametrize("kind", ["JSON", "bytes", "pictures", "form", "raw"])
def test_damaged_request_is_answered_with_a_sentence(client, photo, caplog, kind):
    path, body, headers = requests(photo)[kind]
    random = Random(kind)
    for _ in range(COUNT):
        damaged = body
        for _ in range(random.choice((1, 1, 3))):
            damaged = random.choice((*BYTES, *TEXT))(damaged, random)
        changed = dict(headers)
        if HEADER in headers and random.random() < 0.3:
            changed[HEADER] = str(random.choice((0, 1, int(headers[HEADER]) - 1, int(headers[HEADER]) + 1, 10**6)))
        answer = client.post(path, content=damaged, headers=changed)
        assert answer.status_code in ANSWERS, damaged[:200]
        if answer.status_code != 200:
            assert list(answer.json()) == ["error"]
            assert len(answer.json()["error"]) < 700
    assert "failed" not in caplog.text
