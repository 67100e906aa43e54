"""YAML from anybody is plain values, or one short sentence with the line; a bomb costs neither time nor memory."""

import itertools
import time
from pathlib import Path

import pytest

from emotion_detection.decoding.yaml_text import MAX_BYTES, parse_yaml, read_yaml
from emotion_detection.errors import ConfigError

LETTERS = "abcdefgh"
ANCHOR_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(9 * [f'*{below}'])}]\n" for below, name in itertools.pairwise(LETTERS)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join(9 * [f'*{below}'])}]\n" for below, name in itertools.pairwise(LETTERS)
)


def refusal(text: str) -> str:
    start = time.process_time()
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "recipe.yaml")
    assert time.process_time() - start < 3
    message = str(error.value)
    assert message.startswith("recipe.yaml ")
    assert len(message) < 500
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(ANCHOR_BOMB, "aliases", id="anchor bomb"),
        pytest.param(MERGE_BOMB, "aliases", id="merge bomb"),
        pytest.param("a: &a [*a]", "aliases", id="list that contains itself"),
        pytest.param("a: &a {b: *a}", "aliases", id="mapping that contains itself"),
        pytest.param("a: *" + 9000 * "x", "undefined alias", id="undefined alias"),
        pytest.param("a: &x 1\nb: [" + 9000 * "*x," + "]", "line 2: more than 5000 values", id="many aliases"),
        pytest.param("a: [" + 40_000 * "1," + "]", "more than 5000 values", id="many values"),
        pytest.param("a: " + 4000 * "[", "more than 20 levels", id="deep lists"),
        pytest.param(4000 * "{a: ", "more than 20 levels", id="deep mappings"),
        pytest.param("\n".join(" " * level + "a:" for level in range(300)), "line 20", id="deep blocks"),
        pytest.param("a: 2024-01-01", "line 1: 2024-01-01 is a date", id="date"),
        pytest.param("a: 2024-13-45", "is a date", id="impossible date"),
        pytest.param("a: 0x_", "0x_ is not a number", id="hexadecimal without digits"),
        pytest.param("a: 0b_", "is not a number", id="binary without digits"),
        pytest.param("a: " + 5000 * "9", "is not a number", id="5,000 digits"),
        pytest.param("a: 0x" + 50_000 * "f", "is not a number", id="50,000 hexadecimal digits"),
        pytest.param("\na: .nan", "line 2: .nan is not a number", id="NaN"),
        pytest.param("a: -.inf", "is not a number", id="infinity"),
        pytest.param("a: 1.0e+999", "is not a number", id="overflow"),
        pytest.param("a: 010", "is not a number", id="octal in YAML 1.1 only"),
        pytest.param("a: 1:30", "is not a number", id="base 60"),
        pytest.param("a: !!python/object/apply:os.system [ls]", "the tag", id="Python tag"),
        pytest.param("a: !mine 3", "the tag !mine", id="own tag"),
        pytest.param("a: !!binary aGVsbG8=", "the tag", id="binary"),
        pytest.param("a: !!set {b, c}", "the tag", id="set"),
        pytest.param("? [a, b]\n: 3", "is not a name", id="list as a key"),
        pytest.param("? {a: b}\n: 3", "is not a name", id="mapping as a key"),
        pytest.param("1: 2", "1 is not a name", id="number as a key"),
        pytest.param("a:\n  b: 1\n  b: 2", "line 3: b is there twice", id="duplicate key"),
        pytest.param("a:\n\tb: 1", "line 2: found character", id="tab"),
        pytest.param("a: \0", "cannot be read", id="null character"),
        pytest.param('a: "x\\0y"', "a character that no text can have", id="escaped null character"),
        pytest.param('a: "\\ud800"', "a character that no text can have", id="half of a surrogate pair"),
        pytest.param('a: "\\UFFFFFFFF"', "is not valid YAML", id="code point out of range"),
        pytest.param("a: {<<: 3}", "expected a mapping", id="merge of a number"),
        pytest.param("a: 1\n---\nb: 2", "another document", id="two documents"),
        pytest.param("a: 'b", "line 1", id="open quote"),
    ],
)
def test_hostile_or_ambiguous_text_is_refused_in_one_sentence(text, words):
    assert words in refusal(text)


def test_aliases_and_merges_of_ordinary_size_are_read():
    text = "base: &base {seed: 1, widths: &w [8, 16]}\ntrain: {<<: *base, seed: 2}\nagain: *w\n"
    assert parse_yaml(text, "") == {
        "base": {"seed": 1, "widths": [8, 16]},
        "train": {"seed": 2, "widths": [8, 16]},
        "again": [8, 16],
    }


def test_plain_values_keep_their_types():
    text = "a: [1, -2, 0x1F, 1_000, 0.5, 1.0e-4, true, null, word, 'ü', \"2024-01-01\", 1e-3]"
    assert parse_yaml(text, "")["a"] == [1, -2, 31, 1000, 0.5, 1e-4, True, None, "word", "ü", "2024-01-01", "1e-3"]


def test_empty_text_is_none():
    assert parse_yaml("# only a comment\n", "") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("train: {}".encode("utf-16"), "save the file as UTF-8 text"),
        (b"train: \xfc", "save the file as UTF-8 text"),
        (b"#" * (MAX_BYTES + 1), "has more than 100 kB"),
    ],
)
def test_file_in_another_encoding_or_too_large_is_refused(tmp_path, content, words):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_yaml(tmp_path / "params.yaml")


def test_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "params.yaml") == {"a": 1}


def test_device_that_never_ends_is_refused():
    with pytest.raises(ConfigError):
        read_yaml(Path("/dev/zero"))
