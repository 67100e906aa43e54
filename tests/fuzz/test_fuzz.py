"""A few damaged inputs at every door: each is read or refused with one sentence. `make fuzz` tries many more."""

import pytest
from tests.fuzz.campaign import fuzz, report
from tests.fuzz.doors import DOORS

SEED = 7
SECONDS = 20  # the most for one door; usually two
INPUTS = {"demo": 24, "archive": 24, "video": 20, "table": 16, "parquet": 16, "recipe": 16}  # the others: 40
INPUTS |= {"shard": 16, "parquet shard": 16}
# Keras takes long to import. `make fuzz` opens this door.
SLOW_TO_OPEN = {"weights"}


@pytest.mark.slow
@pytest.mark.parametrize("door", sorted(set(DOORS) - SLOW_TO_OPEN))
def test_damaged_input_is_read_or_refused(door, tmp_path):
    most = INPUTS.get(door, 40)
    result = fuzz(door, seed=SEED, seconds=SECONDS, most=most, kept=tmp_path / "kept", folder=tmp_path / "worker")
    assert not result.faults, report([result])
    assert result.refused > 0
