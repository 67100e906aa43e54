"""Valid files to start from, and hand-made bombs: small files that declare or expand to gigabytes."""

import gzip
import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.fuzz.mutations import Members
from tests.support import fer_files, vote_files
from tests.support.cameras import draw_people, picture_file
from tests.support.onnx_files import write_linear, write_pooled
from tests.support.paths import PRETRAINED, ROOT
from tests.support.results import result_files
from tests.support.videos import write_video

from emotion_detection.config import load_params
from emotion_detection.data.dataset import Faces, save
from emotion_detection.emotions import EMOTIONS
from emotion_detection.training.distillation import augmentation_settings, save_soft_labels

GIGABYTE = 1 << 30
SIDE = 25_000  # px of a picture that takes 2 GB, so that the attempt to decode it is seen
TINY = {"architecture": "fer_resnet", "widths": [4], "blocks": [1], "epochs": 2, "patience": 2, "batch_size": 14}


@dataclass(frozen=True)
class Input:
    """A file, or a folder of files, that a person hands in. The suffix belongs to the file."""

    suffix: str
    content: bytes | Members


def _made(write: Callable[[Path], object], suffix: str) -> Input:
    """The file that a function writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"
        write(path)
        return Input(suffix, path.read_bytes())


def faces() -> Faces:
    return fer_files.random_faces()


# Data sets


def tables() -> list[Input]:
    headers = ("emotion,pixels,Usage", "emotion,pixels", "Usage,emotion,pixels")
    text = [fer_files.csv_table(fer_files.random_faces(21), header).encode() for header in headers]
    return [Input(".csv", content) for content in (*text, b"\xef\xbb\xbf" + text[0].replace(b"\n", b"\r\n"))]


def archives() -> list[Input]:
    pictures = fer_files.kaggle_members(faces(), fer_files.jpeg), fer_files.original_members(faces())
    table = {"fer2013/fer2013.csv": fer_files.csv_table(fer_files.random_faces(21)).encode()}
    zips = [_made(partial(fer_files.write_zip, members=members), ".zip") for members in (*pictures, table)]
    tars = [(".tar", pictures[0]), (".tar.gz", pictures[0]), (".tar.gz", table)]
    return zips + [_made(partial(fer_files.write_tar, members=members), suffix) for suffix, members in tars]


def parquets() -> list[Input]:
    variants = (fer_files.parquet(faces(), EMOTIONS), fer_files.parquet(faces()), fer_files.parquet(faces(), old=True))
    return [Input(".parquet", content) for content in variants]


def results() -> list[Input]:
    """The files of a training and its evaluation."""
    return [Input("", {**result_files(faces(), right=0.5, seed=0)})]


def folders() -> list[Input]:
    small = fer_files.random_faces(21)
    variants: list[Any] = [fer_files.kaggle_members(small), fer_files.original_members(small, "validation")]
    variants += [fer_files.class_members(small), fer_files.huggingface_members(faces())]
    variants += [{"train.csv": fer_files.csv_table(small).encode(), "test.csv": fer_files.csv_table(small).encode()}]
    return [Input("", members) for members in variants]


def votes() -> list[Input]:
    counts = vote_files.random_votes(faces(), agreement=1)
    texts = vote_files.fer_plus(faces(), counts), vote_files.by_file(list(fer_files.kaggle_members(faces())), counts)
    return [Input(".csv", text.encode()) for text in texts]


def vote_bombs() -> list[Input]:
    header = vote_files.FILE_HEADER.encode() + b"\n"
    texts = {
        "endless line": header + b"1" * 20_000_000,
        "open quote": header + b'"' + b"1,2\n" * 3_000_000,
        "zeros": header + bytes(10_000_000),
        "empty lines": header + b"\n" * 10_000_000,
        "deep name": header + b"/a" * 60_000 + b",1" * 10 + b"\n",
        "columns": header.strip() + b",x" * 2_000_000 + b"\n",
    }
    return [Input(".csv", content) for content in texts.values()]


def table_bombs() -> list[Input]:
    row = "0," + " ".join(["7"] * 2304)
    texts = {
        "endless line": b"emotion,pixels\n" + b"0," + b"1 " * 20_000_000,
        "open quote": b'emotion,pixels\n0,"' + b"1 2\n" * 3_000_000,
        "long number": f"emotion,pixels\n0,{'9' * 5000} {row[4:]}\n".encode(),
        "zeros": b"emotion,pixels\n" + bytes(10_000_000),
        "empty lines": b"emotion,pixels,Usage\n" + b"\n" * 32_000_000,
        "utf-16": ("emotion,pixels\n" + row).encode("utf-16"),
        "columns": b"emotion,pixels" + b",x" * 2_000_000 + b"\n",
        "label": f"emotion,pixels\n{'9' * 5000},{row[2:]}\n".encode(),
    }
    return [Input(".csv", content) for content in texts.values()]


def _zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def archive_bombs() -> Iterator[Input]:
    """Made one after another, because each takes a second."""
    lines, zeros = b"emotion,pixels,Usage\n" + b"\n" * 32_000_000, bytes(200_000_000)
    sparse, pax = tarfile.TarInfo("fer2013.csv"), tarfile.TarInfo("fer2013.csv")
    sparse.size, pax.pax_headers = 100 * GIGABYTE, {"comment": "x" * 50_000_000}
    yield Input(".tar", sparse.tobuf() + bytes(1024))
    for number, content in enumerate(_picture_bombs().values()):
        members = {f"train/happy/{number}.png": content, "train/sad/1.png": fer_files.png(faces().images[0])}
        yield Input(".zip", _zip(members)) if number % 2 else Input(".tar", _tar(members))
    yield Input(".zip", _zip({"fer2013.csv": lines}))
    yield Input(".tar.gz", gzip.compress(zeros, 1))
    yield Input(".tar.gz", gzip.compress(pax.tobuf(tarfile.PAX_FORMAT) + bytes(1024), 1))
    yield Input(".zip", _zip({"fer2013.csv": zeros}))
    yield Input(".zip", _zip({f"train/happy/{at}.png": zeros for at in range(3)}))
    yield Input(".zip", _zip({f"train/happy/{at}.png": b"" for at in range(20_000)}))
    yield Input(".zip", _zip({"a.zip": _zip({"fer2013.csv": zeros})}))
    yield Input(".tar.gz", _tar({"fer2013.csv": lines}, "w:gz"))
    yield Input(".csv.gz", gzip.compress(lines, 1))


def parquet_bombs() -> list[Input]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def written(table: Any, **options: Any) -> Input:
        stream = io.BytesIO()
        pq.write_table(table, stream, **options)
        return Input(".parquet", stream.getvalue())

    png = fer_files.png(faces().images[0])
    million = 1_000_000
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(million, np.int32)), pa.array([png]))
    zeros = pa.array([bytes(100_000_000)] * 3)
    labels = pa.array(np.zeros(million, np.int64))
    image = [{"bytes": png, "path": None}] * 3
    cells: list[list[Any]] = [[[0], [1], [2]], ["a", "b", "c"], [0.5, 1.5, 2.5], [None] * 3, [9**15, -1, 300]]
    deep = {"huggingface": "[" * 100_000}
    return [
        written(pa.table({"img_bytes": repeated, "labels": labels})),
        written(pa.table({"img_bytes": zeros, "labels": pa.array([0, 1, 2])}), compression="zstd"),
        written(pa.table({"image": pa.nulls(million), "label": labels})),
        written(pa.table({"image": [{"x": 1}] * 3, "label": [0, 1, 2]})),
        written(pa.table({"image": image, "label": [0, 1, 2]}).replace_schema_metadata(deep)),
        written(pa.table({"image": [list(range(48))] * 3, "label": [0, 1, 2]})),
        written(pa.table({f"c{at}": [0] for at in range(5000)})),
        *(written(pa.table({"image": image, "label": pa.array(cell)})) for cell in cells),
        *(written(pa.table({"img_bytes": [content], "labels": [0]})) for content in _picture_bombs().values()),
    ]


# Pictures

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
OTHERS = (
    *((name, "RGB") for name in ("TGA", "PCX", "ICO", "DDS", "SGI", "IM", "PDF", "EPS", "MPO")),
    ("XBM", "1"),
    ("MSP", "1"),
)


def pictures() -> list[Input]:
    color = Image.fromarray(draw_people(1)).convert("RGB").resize((160, 120))
    suffixes = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}
    return [
        *(_made(partial(color.save, format=name), suffixes.get(name, f".{name.lower()}")) for name in FORMATS),
        _made(partial(color.save, lossless=True), ".webp"),
        _made(partial(color.save, progressive=True), ".jpg"),
        _made(lambda path: color.convert("CMYK").save(path), ".jpg"),
        _made(lambda path: color.convert("P").save(path), ".png"),
        _made(lambda path: color.convert("1").save(path, compression="group4"), ".tif"),
        _made(lambda path: color.save(path, compression="tiff_lzw"), ".tif"),
        _made(lambda path: color.save(path, save_all=True, append_images=[color] * 2), ".gif"),
        _made(lambda path: Image.fromarray(np.asarray(color.convert("L")).astype(np.uint16) * 257).save(path), ".png"),
        Input(".jpg", picture_file("rotated", people=1)),
    ]


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _png(width: int, height: int, *chunks: bytes, bits: int = 8, color: int = 2) -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + _png_chunk(b"IEND", b"")


def _tiff(width: int, height: int, **tags: int) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 4}
    entries |= {int(key[1:]): value for key, value in tags.items()}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4)


def _jpeg(width: int, height: int, junk: bytes = b"") -> bytes:
    frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\1\x22\0\2\x11\1\3\x11\1"
    return (
        b"\xff\xd8" + junk + b"\xff\xc2" + frame + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" + bytes(50) + b"\xff\xd9"
    )


def _encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, name, **options)
    return stream.getvalue()


@cache
def _picture_bombs() -> dict[str, bytes]:
    """Small files that declare large pictures, each in another format."""
    idat = _png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    text = _png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 1))
    profile = _png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 1))
    webp = struct.pack("<I", (16383 & 0x3FFF) | (16383 << 14))
    bmp = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0)
    one = Image.new("RGB", (8, 8))
    jp2 = bytearray(_encoded(one, "JPEG2000"))
    place = jp2.index(b"\xff\x51") + 6  # the size in the code stream; the box before it keeps the small one
    jp2[place : place + 8] = struct.pack(">II", SIDE, SIDE)
    avif = bytearray(_encoded(one, "AVIF"))
    ispe = avif.index(b"ispe") + 8
    small = bytes(avif)
    avif[ispe : ispe + 8] = struct.pack(">II", 30_000, 30_000)
    return {
        "gif": b"GIF89a"
        + struct.pack("<HHBBB", 30_000, 30_000, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 30_000, 30_000, 0)
        + b"\2\1\0;",
        "gif frame": b"GIF89a"
        + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 30_000, 30_000, 0)
        + b"\2\1\0;",
        "bmp": b"BM" + struct.pack("<IHHI", 1024, 0, 0, 54) + bmp + bytes(970),
        "png": _png(SIDE, SIDE, idat),
        "png 16": _png(30_000, 30_000, idat, bits=16, color=6),
        "png long": _png(2_000_000_000, 1, idat),
        "png text": _png(8, 8, text, idat),
        "png profile": _png(8, 8, profile, idat),
        "tiff": _tiff(SIDE, SIDE),
        "tiff strips": _tiff(8, 8, _279=4_000_000_000),
        "tiff samples": _tiff(3000, 3000, _277=25_000),
        "tiff tile": _tiff(8, 8, _322=25_000, _323=25_000, _324=8, _325=4),
        "webp": b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" + webp + bytes(8),
        "webp extended": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\x3f\0\xff\x3f\0",
        "jpeg": _jpeg(25_000, 25_000),
        "jpeg junk": _jpeg(25_000, 25_000, b"\0"),
        "jpeg junk 2": _jpeg(25_000, 25_000, b"\xff\xff\xe0\0\x02\x07"),
        "jp2": bytes(jp2),
        "avif": bytes(avif),
        "avif grid": small.replace(b"av01", b"grid", 1),
        "ppm": b"P6 25000 25000 255\n" + bytes(100),
        "pgm text": b"P2 25000 25000 255\n" + b"1 " * 100,
        "pfm": b"PF\n25000 25000\n-1.0\n" + bytes(100),
        "pam": b"P7\nWIDTH 25000\nHEIGHT 25000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(100),
        "hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 25000 +X 25000\n" + bytes(100),
        "sun": struct.pack(">IIIIIIII", 0x59A66A95, SIDE, SIDE, 24, 0, 1, 0, 0) + bytes(100),
        "exr": b"v/1\x01\x02\0\0\0dataWindow\0box2i\0\x10\0\0\0" + struct.pack("<iiii", 0, 0, SIDE, SIDE) + b"\0",
        "ico": struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, 100, 22) + _png(SIDE, SIDE, idat),
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(100),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="25000" height="25000"/>',
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 25000 25000\n",
        "icns": b"icns" + struct.pack(">I", 1000) + b"ic10" + struct.pack(">I", 992) + _png(SIDE, SIDE, idat),
    }


def picture_bombs() -> list[Input]:
    wide = _encoded(Image.new("1", (11_000, 11_000)), "PNG")  # decodes to less than the limit, so it may be accepted
    frames = [Image.new("L", (2000, 2000), at) for at in range(20)]
    many = _encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:], compression="tiff_deflate")
    names = {"jpeg": ".jpg", "gif": ".gif", "bmp": ".bmp", "tiff": ".tif", "webp": ".webp", "avif": ".avif"}
    bombs = [Input(names.get(name.split()[0], ".png"), content) for name, content in _picture_bombs().items()]
    bombs += [Input("", bomb.content) for bomb in bombs]
    others = [
        Input(f".{name.lower()}", _encoded(frames[0].resize((64, 64)).convert(mode), name)) for name, mode in OTHERS
    ]
    return [*bombs, *others, Input(".png", wide), Input(".tif", many)]


# Videos


def videos() -> list[Input]:
    frames = [np.repeat(draw_people(1, at / 12)[::4, ::4, np.newaxis], 3, 2) for at in range(12)]
    return [_made(lambda path: write_video(path, frames), suffix) for suffix in (".mp4", ".avi", ".webm")]


def video_bombs() -> list[Input]:
    _, avi, _ = videos()
    assert isinstance(avi.content, bytes)
    large = bytearray(avi.content)
    for name, at in ((b"avih", 40), (b"strf", 12)):
        place = large.index(name) + at
        large[place : place + 8] = struct.pack("<II", 16_000, 16_000)
    segments = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    texts = (
        segments,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    )
    entities = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><MPD>&b;</MPD>'
    suffixes = (".mp4", ".avi", ".ts", ".mkv")
    bombs = [Input(suffix, text) for text in (*texts, entities) for suffix in suffixes]
    pictures_as_videos = [Input(".mp4", content) for content in _picture_bombs().values()]
    raw = [
        Input(suffix, b"\0\0\1\xb3" + b"\xff" * 4000) for suffix in (".mpg", ".h264", ".mjpeg", ".flv", ".wmv", ".ogv")
    ]
    y4m = Input(".mp4", b"YUV4MPEG2 W25000 H25000 F25:1 C420\nFRAME\n" + bytes(1000))
    return [
        Input(".avi", bytes(large)),
        y4m,
        *bombs,
        *pictures_as_videos,
        *raw,
        Input(".mp4", b""),
        Input(".mp4", b"text"),
    ]


# Settings


def params() -> list[Input]:
    return [Input(".yaml", (ROOT / "params.yaml").read_bytes())]


def recipes() -> list[Input]:
    return [Input(".yaml", path.read_bytes()) for path in sorted((ROOT / "recipes").glob("*.yaml"))]


def setting_bombs() -> list[Input]:
    """Texts in place of a number, in an otherwise valid params.yaml."""
    text = (ROOT / "params.yaml").read_text()
    anchors = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    merges = "b0: &b0 {x: 1}\n" + "".join(f"b{n}: &b{n}\n  <<: [*b{n - 1}, *b{n - 1}]\n" for n in range(1, 40))
    values: tuple[str, ...] = (
        "2024-13-45",
        "2001-99-99",
        "0x_",
        "0b_",
        "9" * 5000,
        "1e400",
        ".nan",
        ".inf",
        "-.inf",
        "2 ** 3",
        "4294967296",
    )
    values += (
        "[" * 5000,
        "{a: " * 3000,
        "!!python/name:os.system",
        "!!timestamp x",
        "!!int x",
        "!!float a",
        "!!binary '?'",
    )
    values += (
        "1000000000000",
        "'" + "x" * 1_000_000 + "'",
        "*a",
        "&a [*a, *a]",
        "190:20:30",
        "_1",
        "0o_",
        "+_",
        "'\\ud800'",
    )
    values += (
        '"\\ud800"',
        '"\\0"',
        "12:30:45.6",
        "2001-12-14t21:59:43.10-05:00",
        "2001-12-14 21:59:43 -99:99",
        "=",
        "<<",
    )
    keys = [(KEYS[number % len(KEYS)], value) for number, value in enumerate(values)]
    changed = [text.replace(key, f"{key.split(':')[0]}: {value}") for key, value in keys]
    documents: tuple[str, ...] = (
        anchors,
        merges,
        text + "\n---\n" + text,
        text + text,
        "? [a, b]\n: c\n",
        "train: [1]\n",
        "x" * 10_000_000,
    )
    documents += ("{" * 100_000, "- " * 100_000, "a:\n" * 5, "\t", "%YAML 9.9\n---\na", "!!set {a, b}", "? {a: b}", "")
    documents += ("&a {train: *a}", "train: &a {augment: *a}", "train: {seed: {<<: 3}}", "~: 1", "1: 2", "true: {}")
    encoded = (
        text.encode("utf-16"),
        text.encode("utf-32"),
        b"\xff\xfe\x00",
        b"\x00" * 100,
        text.encode()[:500] + b"\xe9",
    )
    as_bytes = [document.encode() for document in (*changed, *documents)]
    return [Input(".yaml", content) for content in (*as_bytes, *encoded)]


KEYS = ("seed: 1", "learning_rate: 0.1", "scale: [0.9, 1.1]")


# NumPy files, models and reports


def face_files() -> list[Input]:
    return [_made(lambda path: save(faces(), path), ".npz")]


def soft_label_files() -> list[Input]:
    train = load_params(ROOT / "params.yaml").train
    split = faces().of("train")
    rows = -(-len(split) // train.batch_size) * train.batch_size  # the last batch is filled up
    shapes = ((len(split), 7), (2, rows, 7))
    files = []
    for shape, augmentation in zip(shapes, ("", augmentation_settings(train)), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            probabilities = np.full(shape, 1 / 7, np.float32)
            path = save_soft_labels(probabilities, split, [], Path(folder), augmentation=augmentation)
            files.append(Input(".npz", path.read_bytes()))
    return files


def _npy(descr: str, shape: tuple[int, ...], content: bytes = b"", order: str = "False") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header) + 1) + header + b"\n" + content


def array_bombs(names: tuple[str, ...]) -> Iterator[Input]:
    """npz files whose arrays are huge, of odd types or of odd shapes, under the names that a reader expects."""
    nan, negative = np.full((21, 7), np.nan, "<f2"), np.full((21, 7), -1, "<f2")
    odd = [
        *(
            _npy("|u1", (100 * GIGABYTE,)),
            _npy("|O", (3,), b"x"),
            _npy("<f8", (-1,)),
            _npy("<U99999999", (9,)),
            b"",
            b"PK",
        ),
        *(_npy("|u1", ()), _npy("|u1", (0, 48, 48)), _npy("<M8[s]", (2,), bytes(16)), _npy("|V8", (2,), bytes(16))),
        *(b"\x93NUMPY\x03\0" + b"\xff" * 8, _npy("<f2", (1,) * 70, b"ab"), _npy("<f8", (21, 1), bytes(168))),
        *(_npy("<f2", (21, 7), nan.tobytes()), _npy("<f2", (21, 7), negative.tobytes()), _npy("x", (1,))),
        *(
            _npy("<f2", (1, 7), nan[:1].tobytes()),
            _npy("<f4", (0,)),
            _npy("<c16", (1,), bytes(16)),
            _npy("<U1", (1,), b"a\0\0\0"),
        ),
    ]
    for content in odd:
        yield Input(".npz", _zip({f"{names[0]}.npy": content}))
        yield Input(".npz", _zip({f"{name}.npy": content for name in names}))
    for content in (_zip({}), b"", b"PK\5\6" + bytes(18), _npy("|u1", (3,), b"abc"), _npy("|O", (1,), b"cos\n")):
        yield Input(".npz", content)
    yield Input(".npz", _zip({f"{names[0]}.npy": _npy("|u1", (900_000_000,), bytes(900_000_000))}))


def models() -> list[Input]:
    return [
        _made(write_linear, ".onnx"),
        _made(lambda path: write_pooled(path, dense=True), ".onnx"),
        _made(lambda path: write_pooled(path, dense=False), ".onnx"),
    ]


def shipped_model() -> Input:
    return Input(".onnx", (PRETRAINED / "model.onnx").read_bytes())


def model_bombs() -> list[Input]:
    """Graphs that allocate gigabytes, never end, refer to other files or give no numbers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def model(
        nodes: list[Any], constants: dict[str, Any] | None = None, *, temperature: str = "1", **change: Any
    ) -> bytes:
        inputs = change.get("inputs", [helper.make_tensor_value_info("faces", TensorProto.UINT8, ["n", 48, 48, 1])])
        outputs = change.get("outputs", [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 7])])
        tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
        graph = helper.make_graph(nodes, "g", inputs, outputs, tensors + change.get("initializers", []))
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(made, {"labels": json.dumps(EMOTIONS), "temperature": temperature})
        return made.SerializeToString()

    def linear(value: float = 0.0, **change: Any) -> bytes:
        constants = {"k": np.full((2304, 7), value, np.float32), "shape": np.array([0, -1])}
        names: list[Any] = [
            ("Cast", ["faces"], "a", {"to": 1}),
            ("Reshape", ["a", "shape"], "b", {}),
            ("MatMul", ["b", "k"], "c", {}),
        ]
        nodes = [helper.make_node(name, inputs, [output], **options) for name, inputs, output, options in names]
        return model([*nodes, helper.make_node("Softmax", ["c"], ["probabilities"])], constants, **change)

    huge = np.array([40_000, 40_000], np.int64)
    reduced = helper.make_node("ReduceMax", ["big"], ["probabilities"], keepdims=0)
    external = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[2304, 7], data_location=TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="/etc/passwd")
    claimed = TensorProto(name="k", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 20])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, [])],
    )
    loop = helper.make_node("Loop", ["", "yes"], [], body=body)
    scalar = [helper.make_tensor_value_info("faces", TensorProto.UINT8, [])]
    contents = (
        *(linear(temperature=text) for text in ("abc", "", "nan", "0", "-1", "1e400", "9" * 5000)),
        *(linear(value) for value in (np.nan, np.inf)),
        model([helper.make_node("ConstantOfShape", ["shape"], ["big"]), reduced], {"shape": huge}),
        model(
            [helper.make_node("Expand", ["x", "shape"], ["big"]), reduced], {"x": np.ones(1, np.float32), "shape": huge}
        ),
        model(
            [helper.make_node("Tile", ["x", "shape"], ["big"]), reduced],
            {"x": np.ones((1, 1), np.float32), "shape": huge},
        ),
        model([loop, reduced], {"yes": np.array(True), "big": np.ones(1, np.float32)}),
        model([helper.make_node("MatMul", ["faces", "k"], ["probabilities"])], initializers=[external]),
        model([helper.make_node("MatMul", ["faces", "k"], ["probabilities"])], initializers=[claimed]),
        model([], inputs=[], outputs=[]),
        model([helper.make_node("Cast", ["faces"], ["probabilities"], to=1)], inputs=scalar),
        model([helper.make_node("Unknown", ["faces"], ["probabilities"], domain="x")]),
        model([helper.make_node("Softmax", ["missing"], ["probabilities"])]),
        *(onnx.ModelProto().SerializeToString(), b"", b"\x08" * 100_000, b"\x0a" * 5000, b"\x3a\xff\xff\xff\xff\x0f"),
    )
    return [Input(".onnx", content) for content in contents]


def reports() -> list[Input]:
    return [Input(".json", json.dumps({"dataset": "sample", "digest": "0" * 64, "dvc_md5": "0" * 32}).encode())]


def report_bombs() -> list[Input]:
    texts = (
        "",
        "[]",
        "null",
        "1",
        "[" * 100_000,
        '{"a":' * 50_000,
        "9" * 5000,
        '{"dataset": 1e999}',
        '"\\ud800"',
        "\x00",
        "{}",
    )
    return [Input(".json", text.encode()) for text in (*texts, '{"dataset": NaN}', '{"dataset": [1], "digest": {}}')]
