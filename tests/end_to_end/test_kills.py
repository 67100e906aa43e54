"""Stages that are killed at chosen places: the repeated command loses nothing and doubles nothing.

tests/fuzz/kills.py kills at more places, and at random moments.
"""

import pytest
from tests.support.kills import arm, faults, killed_at
from tests.support.project import EPOCHS, Project

pytestmark = pytest.mark.timeout(1200)  # on a slow machine while other tests run
PLACES = (
    "train, in its first checkpoint",
    "train, just after its end",
    "evaluate, before the report has its name",
    "register, in log_model",
    "register, after the version and the alias",
)


def test_killed_stages_lose_nothing_and_double_nothing(tmp_path, migrated_store):
    project = Project(tmp_path, migrated_store)
    arm(project)
    for place in PLACES:
        assert killed_at(project, place) == f"killed in {place}"
    project.run("dvc", "repro")
    assert faults(project, known=set(), epochs=EPOCHS) == []
