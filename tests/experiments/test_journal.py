"""The journal of what a store has missed: nothing is lost or read twice, whenever a process is killed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from emotion_detection.errors import DataError
from emotion_detection.experiments import journal
from emotion_detection.experiments.journal import RECORDS, BusyError, exclusive_delivery, journal_of, journals, writable

ID = "0" * 32


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:my-password@127.0.0.1:1")
    return tmp_path


def kinds(run_id=ID):
    return [line["kind"] for line in journal_of(run_id).pending()]


def test_calls_keep_their_order_times_and_contents():
    written = journal_of(ID)
    written.add("metrics", 5, {"values": {"val_loss": 0.5}, "step": 1})
    written.add("end", 7, {"status": "FINISHED"})
    first, second = journal_of(ID).pending()
    assert first == {"kind": "metrics", "at": 5, "content": {"values": {"val_loss": 0.5}, "step": 1}, "number": 1}
    assert (second["at"], second["number"]) == (7, 2)


def test_delivered_calls_are_not_pending():
    written = journal_of(ID)
    for kind in ("params", "metrics", "end"):
        written.add(kind, 1, {})
    written.mark_delivered(2)
    assert kinds() == ["end"]
    written.add("start", 2, {})
    assert kinds() == ["end", "start"]
    written.mark_delivered(4)
    assert kinds() == []


@pytest.mark.parametrize("cut", range(1, 40, 5))
def test_line_of_a_killed_process_is_ignored_and_the_next_one_counts(cut):
    written = journal_of(ID)
    written.add("params", 1, {})
    written.add("metrics", 2, {})
    path = written.folder / RECORDS
    path.write_bytes(path.read_bytes()[:-cut])
    assert kinds() == ["params"] if cut > 1 else ["params", "metrics"]
    written.add("end", 3, {})
    assert kinds()[-1] == "end"
    assert len(kinds()) == (2 if cut > 1 else 3)


def test_journal_that_was_killed_before_its_first_line_is_begun_again():
    written = journal_of(ID)
    written.folder.mkdir(parents=True)
    (written.folder / RECORDS).write_text('{"kind": "jour')
    assert not written.exists
    assert not journals()
    written.add("params", 1, {})
    assert kinds() == ["params"]


def test_files_belong_to_their_call(project):
    def write(folder):
        (folder / "a.txt").write_text("a")

    leftover = journal_of(ID).files(2)
    leftover.mkdir(parents=True)
    (leftover / "half").touch()  # of a killed process
    written = journal_of(ID)
    written.add("params", 1, {})
    written.add("artifacts", 1, {}, write)
    (number,) = [line["number"] for line in written.pending() if line["kind"] == "artifacts"]
    assert [path.name for path in written.files(number).iterdir()] == ["a.txt"]
    assert written.folder == project / "build" / "journal" / ID


def test_journals_are_sorted_by_age_and_have_no_password():
    for run_id, at in (("a", 3), ("b", 1), ("c", 2)):
        journal_of(run_id).add("params", at, {})
    assert [one.run_id for one in journals()] == ["b", "c", "a"]
    text = (journals()[0].folder / RECORDS).read_text()
    assert "my-password" not in text
    assert journals()[0].is_for_present_store


def test_journal_of_another_store_is_not_for_this_one(monkeypatch):
    journal_of(ID).add("params", 1, {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:2")
    assert not journal_of(ID).is_for_present_store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:other-password@127.0.0.1:1")  # the first one was wrong
    assert journal_of(ID).is_for_present_store


def test_removed_journal_is_locked_until_its_process_ends(project):
    written = journal_of(ID)
    with written.lock(), ThreadPoolExecutor(1) as pool:
        written.add("params", 1, {})
        written.remove()
        assert [path.name for path in (project / "build" / "journal").iterdir()] == [f"{ID}.lock"]
        second = pool.submit(lambda: written.lock(0).__enter__())
        assert isinstance(second.exception(), BusyError)


def test_stage_writes_beside_a_journal_that_is_delivered(monkeypatch):
    monkeypatch.setattr(journal, "WAIT_S", 0)

    def write():
        with writable(ID) as beside:
            beside.add("params", 2, {})

    first = journal_of(ID)
    first.add("start", 1, {})
    with first.lock(), ThreadPoolExecutor(1) as pool:
        pool.submit(write).result()
    assert kinds() == ["start"]
    assert [(one.run_id, len(one.pending())) for one in journals()] == [(ID, 1), (ID, 1)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('{"kind": "delivered"}', "damaged"),
        ('{"kind": "delivered", "calls": "2"}', "damaged"),
        ('{"kind": "tags"}', "tags"),
        ('{"kind": "tags", "at": 1.5, "content": {}}', "tags"),
        ('{"kind": "tags", "at": 1, "content": []}', "tags"),
        ('{"kind": []}', "damaged"),
        ("[]", "damaged"),
        ("1", "damaged"),
        ("[" * 100_000 + "]" * 100_000, "damaged"),
    ],
)
def test_damaged_line_is_a_call_without_a_content(line, kind):
    written = journal_of(ID)
    written.add("params", 1, {})
    with (written.folder / RECORDS).open("a") as stream:
        stream.write(f"\n{line}\n")
    written.add("artifacts", 1, {}, lambda folder: (folder / "a").touch())
    pending = journal_of(ID).pending()
    assert [(one["kind"], one["number"]) for one in pending] == [("params", 1), (kind, 2), ("artifacts", 3)]
    assert pending[1]["content"] is None
    assert [path.name for path in written.files(3).iterdir()] == ["a"]


def test_damaged_first_line_hides_no_call():
    written = journal_of(ID)
    written.add("params", 1, {})
    path = written.folder / RECORDS
    path.write_text(path.read_text().replace('"store"', '"place"'))
    assert not written.exists
    written.add("tags", 1, {})
    assert kinds() == ["damaged", "params", "tags"]


@pytest.mark.parametrize("run_id", ["", "../../etc", "a/b", "0" * 100])
def test_text_that_is_no_id_is_refused(run_id):
    with pytest.raises(DataError, match="is not the ID of a run"):
        journal_of(run_id)


@pytest.mark.parametrize("lock", [lambda: journal_of(ID).lock(0), exclusive_delivery], ids=["journal", "delivery"])
def test_second_process_waits_or_gives_up(lock, monkeypatch):
    monkeypatch.setattr(journal, "LOCK_TIMEOUT_S", 0)
    results = []

    def second():
        try:
            with lock():
                results.append("entered")
        except BusyError:
            results.append("busy")

    with lock(), lock():  # may be nested
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
    assert results == ["busy", "entered"]


def test_journal_of_a_queued_experiment_is_in_the_project(project, monkeypatch):
    (project / "copy").mkdir()
    (project / "copy" / "dvc.yaml").touch()
    monkeypatch.chdir(project / "copy")
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert journal_of(ID).folder == project / "build" / "journal" / ID
