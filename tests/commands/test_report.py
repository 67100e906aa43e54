"""`emotion-detection report` and `card` write complete files, and refuse a wrong name in one sentence."""

import re

import pytest
from huggingface_hub import ModelCard
from tests.support.results import results

from emotion_detection.cli import main
from emotion_detection.data.dataset import digest
from emotion_detection.reporting import sources
from emotion_detection.reporting.sources import LocalFaces


@pytest.fixture(autouse=True)
def known(drawn, monkeypatch, tmp_path):
    """Two results, `main` and `candidate`, and the faces that they are about."""
    monkeypatch.chdir(tmp_path)
    found = {"main": results(drawn, "main", right=0.2), "candidate": results(drawn, "candidate", right=0.9)}
    monkeypatch.setattr(sources, "find_results", lambda name, _: found[name])
    monkeypatch.setattr(sources, "find_faces", lambda _: LocalFaces(drawn, digest(drawn)))


def test_report_is_written_as_page_and_markdown(tmp_path, capsys):
    main(["report", "main", "candidate", "--output", "report.html", "--markdown", "report.md"])
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    verdict = capsys.readouterr().out.splitlines()[0]
    assert verdict in page
    assert f"**{verdict}**" in text
    assert page.count("<figure>")
    assert "data:image" not in text


def test_report_without_faces_has_no_pictures(tmp_path):
    main(["report", "main", "candidate", "--no-faces"])
    page = (tmp_path / "report.html").read_text()
    assert "data:image" not in page
    assert "not shown" not in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--output", "report.pdf"],
            r"--output report\.pdf cannot be the file to write: use a name that ends with \.html",
        ),
        (["--output", "."], r"--output \. cannot be"),
        (["--output", "folder.html"], r"--output folder\.html cannot be"),
        (["--markdown", "report.txt"], r"ends with \.md"),
        (["--output", "taken/report.html"], "taken"),
    ],
)
def test_wrong_output_is_refused(flags, message, tmp_path, capsys):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "taken").write_text("old")
    with pytest.raises(SystemExit):
        main(["report", "main", "candidate", *flags])
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_card_of_the_shipped_model_is_printed_or_written(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    main(["card", "shipped"])
    printed = capsys.readouterr().out
    main(["card", "shipped", "--output", "card.md"])
    assert (tmp_path / "card.md").read_text() == printed
    assert ModelCard.load(tmp_path / "card.md").data.model_name == "Shipped model"


def test_card_of_nothing_is_refused(store, capsys, monkeypatch):  # noqa: ARG001
    monkeypatch.undo()
    with pytest.raises(SystemExit):
        main(["card", "models:/nothing@champion"])
    assert "the registry does not contain models:/nothing@champion" in capsys.readouterr().err
