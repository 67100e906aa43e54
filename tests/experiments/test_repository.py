"""Questions to git about files and commits."""

from tests.support.repositories import commit_all, git

from emotion_detection.experiments.repository import commit_of_content


def test_commit_that_gave_a_file_its_content_is_found_after_a_move(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"first\n" * 50)
    commit_all(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"second\n" * 50)
    added = commit_all(tmp_path)
    (tmp_path / "moved").mkdir()
    git(tmp_path, "mv", "model.onnx", "moved/model.onnx")
    commit_all(tmp_path)
    (tmp_path / "other.txt").write_text("later")
    commit_all(tmp_path)
    assert commit_of_content(tmp_path / "moved" / "model.onnx") == added


def test_file_with_changes_has_no_commit_yet(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"first")
    commit_all(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"released just now")
    assert commit_of_content(tmp_path / "model.onnx") == ""


def test_file_outside_of_a_repository_has_no_commit(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"first")
    assert commit_of_content(tmp_path / "model.onnx") == ""
