"""`python -m tests.support.fake_tune ARGUMENTS`: the command line, whose searches train with fake_training.

Draws figures only if DRAW_FIGURES is set, because that takes seconds.
"""

import os

from tests.support.fake_training import TRAINER

from emotion_detection import cli
from emotion_detection.tuning import plots, supervisor, worker

if __name__ == "__main__":
    worker.TRAINER = TRAINER
    supervisor.POLL_S = 0.2
    if "DRAW_FIGURES" not in os.environ:
        plots.draw = lambda study, folder: []  # noqa: ARG005
    cli.main()
