"""No secret leaves the process, in whatever form a text contains it."""

import json
import logging
import os
import sys
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_detection.redaction import find_login_fault, redact_uri, scrub, scrubbed_output

ANY_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=6, max_size=30).filter(
    # The path of a file is no secret; Hypothesis also tries texts that are in the code.
    lambda text: text == text.strip() and "*" not in text and not os.path.exists(text)
)
WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"), min_size=6, max_size=30)
PLAIN = st.text("abcXYZ0123456789-_.~+/=", min_size=8, max_size=40)
# Secrets that the surrounding words contain are not found by looking for them in the result.
WORDS = "Cannot connect to postgresql://ann:@127.0.0.1:5432/base?: refused. Nothing is lost Authorization Bearer token="


def survives(secret: str, text: str) -> bool:
    return secret not in WORDS and secret in text


@settings(max_examples=100, deadline=None)
@given(secret=WORD)
def test_password_of_a_url_is_removed_whatever_it_contains(secret):
    for text in (
        f"cannot connect to postgresql://ann:{secret}@127.0.0.1:5432/base: refused",
        f"GET http://ann:{secret}@127.0.0.1:1/api/2.0?x=1",
        f"'https://{secret}@host/'",
    ):
        assert not survives(secret, scrub(text)), scrub(text)


@settings(max_examples=100, deadline=None)
@given(secret=ANY_TEXT, name=st.sampled_from(["MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "KAGGLE_KEY", "PGPASSWORD"]))
def test_secret_of_the_environment_is_removed_in_every_form(secret, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, secret)
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1]):
            scrubbed = scrub(f"Cannot connect: {form} refused")
            assert scrubbed == "Cannot connect: *** refused" or form in "Cannot connect: refused"


@settings(max_examples=100, deadline=None)
@given(secret=WORD)
def test_parts_of_an_address_are_removed_where_they_stand_alone(secret):
    address = f"http://ann:{secret}@127.0.0.1:1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address)
        assert not survives(secret, scrub(f"Cannot connect with {secret} refused"))
    assert not survives(secret, scrub(f"Cannot connect with {secret} refused", address))
    assert not survives(secret, redact_uri(address))


@settings(max_examples=100, deadline=None)
@given(
    secret=PLAIN,
    name=st.sampled_from(
        ["token", "password", "access_token", "api_key", "apikey", "sig", "key", "X-Amz-Signature", "client_secret"]
    ),
)
def test_secret_of_a_query_is_removed(secret, name):
    for text in (
        f"https://host/path?{name}={secret}",
        f"Max retries exceeded with url: /api/2.0/mlflow/runs?a=b&{name}={secret} (refused)",
        f'"GET /path?{name}={secret} HTTP/1.1" 200',
    ):
        assert not survives(secret, scrub(text)), scrub(text)


@settings(max_examples=100, deadline=None)
@given(secret=PLAIN)
def test_secret_of_a_header_or_a_setting_is_removed(secret):
    for text in (
        f"Authorization: Bearer {secret}",
        f"{{'Authorization': 'Basic {secret}', 'Accept': '*/*'}}",
        f"curl -H 'authorization: token {secret}'",
        f"Cookie: session={secret}; other={secret}",
        f"sent Bearer {secret}",
        f'{{"password": "{secret}"}}',
        f"host=db password={secret} user=ann",
        f"--api-key {secret} --verbose",
        f"AWS_SECRET_ACCESS_KEY={secret}",
        f"AccountKey={secret};",
    ):
        assert not survives(secret, scrub(text)), scrub(text)


@pytest.mark.parametrize(
    "token",
    [
        "ghp_" + 36 * "a",
        "github_pat_" + 22 * "a" + "_" + 20 * "b",
        "hf_" + 34 * "x",
        "AKIA" + 16 * "A",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_token_of_a_known_form_is_removed(token):
    assert scrub(f"found {token} here") == "found *** here"


@pytest.mark.parametrize(
    "text",
    [
        "models:/emotion-detection@champion is not registered",
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning",
        "train.epoch is not a parameter; allowed here: seed, initial_weights",
        "the storage sqlite:////home/ann/build/tuning/study.db cannot be used",
        "write to ann@example.org, or see https://example.org/a/b#c",
        "best 0.613 (trial 4): KeyError: 'key'",
    ],
)
def test_text_without_secrets_is_unchanged(text):
    assert scrub(text) == text


def test_switch_that_is_named_like_a_secret_is_none(monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pw")
    assert scrub("1 of pwd and pw") == "1 of pwd and ***"


@pytest.mark.parametrize(
    ("uri", "faulty"),
    [
        ("http://ann:p@ss@host:5000", True),
        ("http://ann:p/ss@host:5000", True),
        ("http://ann:p#ss@host", True),
        ("postgresql://ann:p@ss@host/base", True),
        ("postgresql://ann:p/ss@host/base", False),  # SQLAlchemy reads it
        ("http://ann:p%40ss@host:5000", False),
        ("http://host:5000/team@work", False),
        ("http://host/team@work", False),
        ("http://host:5000", False),
        ("sqlite:////home/a@b/mlflow.db", False),
    ],
)
def test_login_that_libraries_would_misread_is_found(uri, faulty):
    assert bool(find_login_fault(uri)) == faulty


def test_printed_and_logged_text_has_no_secrets(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "my-secret-word")
    foreign = logging.getLogger("some.library")
    handler = logging.StreamHandler(sys.stderr)  # a stream that is not ours
    foreign.addHandler(handler)
    try:
        with scrubbed_output():
            print("out", "my-secret-word")
            print("http://ann:pw@host", file=sys.stderr)
            foreign.warning("sent %s", "my-secret-word")
            try:
                raise ValueError("my-secret-word")
            except ValueError:
                foreign.exception("failed")
    finally:
        foreign.removeHandler(handler)
    printed = capsys.readouterr()
    assert printed.out == "out ***\n"
    assert printed.err.startswith("http://ann:***@host\nsent ***\nfailed\nTraceback")
    assert "my-secret-word" not in printed.err
    print("my-secret-word")  # afterwards nothing is changed
    assert capsys.readouterr().out == "my-secret-word\n"
