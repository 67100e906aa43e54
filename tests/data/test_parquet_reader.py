"""Parquet files: nothing is lost silently, and a small file cannot fill the memory."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from tests.support.fer_files import huggingface_members, parquet, png, random_faces, write_file, write_folder

from emotion_detection.data import parquet_reader
from emotion_detection.data.formats import read_raw
from emotion_detection.decoding.memory import ENFORCED
from emotion_detection.emotions import EMOTIONS
from emotion_detection.errors import DataError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

FACES = random_faces()
FACE = png(FACES.images[0])
# A picture of 2 MB of zeros that is stored once and used in 1,024 rows, which together take two gigabytes. Made by
# writing a pa.DictionaryArray with compression="zstd", store_schema=False and dictionary_pagesize_limit=1 << 30.
BOMB = base64.b85decode(
    r"P(e~L6$BNSlJo%;x&cfT0u=xf001bpFa4m5gdPB_003x+gdPBiP)<h;3K|Lk0RZs-Irsts01yBI01yBI01yBI01yBI01yBI01yBI01yBI01yBI"
    r"01yBI01yBI01yBI01yBI01yBI01yCUBm@8z02LM$C@d9#5ET#=1{DSzHUIzs04TLD{U8fj00093004jx0Reyz02Krk5EU3q6#^9i5&!@wwJ-f3"
    r"2ps?bK>z?102LM$C@d9#5ET#=1{DSz7zh9W00000000;W0000000000762#+00000000007zh9W00000000pY0000ewJ-f33t0dF0{{R3fDi!z"
    r"fDix`1Q|Rv02l^yV`yb<VHE@b6$~W;7zt@@XJ2A@bY*h@6$B*$7zS)%Vr6V|02Y7{85|ibCIB223>h^51`rt-32AL-Ut)Q5Wpfn_7Jv{I{*v?o"
    r"7P0~+<^d)M95w&|87vh96#x|i02Kfg5ETLdJQjd}k)aP61{o#*fDixx044w&6$BYI00s~l7zS)%Vr6V|6$}=D5EjA#7Tf_Q?gA#d0vs3!00000"
    r"000007zh9W00000000&MC<p)m00000000;W00000000005fK0xEENP502KlN6#x|w6#@V}DFzuP0Duqx000)il=J}>fDk4K7LEh}C?IfQa&dKK"
    r"bS-0Wa4lhSa&LDac4cyNX>V>IGBqwRE-@J_8~^|u0000e0RR9{K~ga"
)
HALF = np.arange(len(FACES)) < 30


def content_of(columns: dict[str, Any], metadata: bytes | None = None, **options: Any) -> bytes:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": metadata})
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def test_missing_shard_is_refused(tmp_path):
    members = {f"data/train-0000{part}-of-00003.parquet": parquet(FACES[HALF]) for part in (0, 2)}
    message = r"data/train-00001-of-00003\.parquet is missing: download it too"
    with pytest.raises(DataError, match=message):
        read_raw(write_folder(tmp_path / "d", members))
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet is missing"):
        read_raw(write_file(tmp_path / "train-00000-of-00002.parquet", parquet(FACES)))
    with pytest.raises(DataError, match=r"train/0001\.parquet is missing"):
        read_raw(write_folder(tmp_path / "e", {f"train/000{part}.parquet": parquet(FACES) for part in (0, 2)}))


def test_all_shards_are_read(tmp_path):
    members = {
        "train-00000-of-00002.parquet": parquet(FACES[HALF]),
        "train-00001-of-00002.parquet": parquet(FACES[~HALF]),
    }
    np.testing.assert_array_equal(read_raw(write_folder(tmp_path / "d", members)).faces.images, FACES.images)


@pytest.mark.parametrize("content", [b"", b"PAR2", b"version https://git-lfs.github.com/spec/v1\n"])
def test_file_of_a_data_set_without_its_signature_is_refused(tmp_path, content):
    members = huggingface_members(FACES)
    first = next(iter(members))
    with pytest.raises(DataError, match=rf"{first} is a (damaged parquet file|Git LFS pointer)"):
        read_raw(write_folder(tmp_path / "d", members | {first: content + members[first][len(content) :][:-1]}))


@pytest.mark.skipif(not ENFORCED, reason="the ceiling on memory needs Linux")
def test_value_that_expands_is_refused(tmp_path):
    assert len(BOMB) < 600
    with pytest.raises(DataError, match=r"unpacks to far more than FER-2013"):
        read_raw(write_file(tmp_path / "x", BOMB))


def test_many_rows_are_refused_by_the_metadata(tmp_path):
    path = write_file(
        tmp_path / "x", content_of({"img_bytes": pa.nulls(200_000, pa.binary()), "labels": [0] * 200_000})
    )
    with pytest.raises(DataError, match="has 200,000 rows, more than any copy of FER-2013"):
        read_raw(path)


def test_large_metadata_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "MAX_FOOTER_BYTES", 100)
    with pytest.raises(DataError, match="is a damaged parquet file"):
        read_raw(write_file(tmp_path / "x", parquet(FACES)))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [{"bytes": FACE}], "label": [[0, 0]]},
            "has the types binary and list<.*instead of bytes and numbers",
        ),
        ({"image": [{"bytes": FACE}], "label": ["happy"]}, "has the types binary and string"),
        ({"image": [{"path": "x"}], "label": [0]}, "has the types null and int64"),
        ({"image": [[FACE]], "label": [0]}, "has the types list<"),
        ({"image": ["x"], "label": [0]}, "has the types string and int64"),
        ({"image": [{"bytes": None}], "label": [0]}, "types null|row 1 contains no image"),
        ({"image": pa.array([None], pa.struct({"bytes": pa.binary()})), "label": [0]}, "row 1 contains no image"),
        ({"img_bytes": [FACE], "labels": pa.array([None], pa.int64())}, "row 1 has label None"),
        ({"img_bytes": [FACE], "labels": [2**63 - 1]}, "row 1 has label 9223372036854775807"),
        ({"x" * 10_000: [FACE], "b": [0]}, "has the columns x"),
    ],
)
def test_unusual_column_is_refused(tmp_path, columns, message):
    with pytest.raises(DataError, match=message) as error:
        read_raw(write_file(tmp_path / "x", content_of(columns)))
    assert len(str(error.value)) < 500


def names_of(names: object) -> bytes:
    return json.dumps({"info": {"features": {"labels": {"names": names}}}}).encode()


@pytest.mark.parametrize(
    "metadata",
    [
        b"[" * 100_000,
        b"[1]",
        b"1" * 5000,
        b"\xff\0",
        b"{",
        names_of([1]),
        names_of("happy"),
        names_of({"happy": 0}),
        names_of(7),
        b" " * 300_000,
    ],
)
def test_damaged_metadata_are_refused(tmp_path, metadata):
    content = content_of({"img_bytes": [FACE], "labels": [0]}, metadata)
    with pytest.raises(DataError, match="has damaged metadata of Hugging Face"):
        read_raw(write_file(tmp_path / "x", content))


@pytest.mark.parametrize("metadata", [None, b"{}", b'{"info": null}', names_of(None), names_of(list(EMOTIONS))])
def test_missing_class_names_are_those_of_the_table(tmp_path, metadata):
    content = content_of({"img_bytes": [FACE], "labels": [3]}, metadata)
    assert read_raw(write_file(tmp_path / "x", content)).faces.labels.tolist() == [3]
