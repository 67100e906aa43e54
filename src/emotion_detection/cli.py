"""The `emotion-detection` command. A subcommand is imported only when it is used."""

from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App

from emotion_detection.command_line import run_app

HELP = """Read facial expressions, and train the model that reads them.

Start with `emotion-detection predict photo.jpg`. The other commands work on a checkout of the project.
"""

PREDICT = """Read the faces in pictures, videos or a camera.

Existing files are never overwritten. If a picture cannot be read, the other pictures are still read; the error is
printed at the end, and the exit status is 1. Ctrl-C stops a camera and keeps what was read so far. With any other
source, Ctrl-C writes nothing, and the exit status is 130.
"""

app = App(name="emotion-detection", help=HELP, version=lambda: version("emotion-detection"))
for name, function, summary in (
    ("predict", "predict:predict", PREDICT),
    ("serve", "serve:serve", "Serve the model over HTTP: pictures or faces in, readings out."),
    ("batch", "batch:batch", "Read any number of pictures into parquet files, on one machine or many."),
    ("data", "data:add_data", "Put a copy of FER-2013 into data/ and track it with DVC."),
    ("adopt", "adopt:adopt", "Write the settings of a recipe into params.yaml."),
    ("tune", "tune:tune", "Search better settings with Optuna."),
    ("soft-labels", "soft_labels:soft_labels", "Let models label the training faces, for distillation."),
    ("release", "release:release", "Replace the shipped model by the pipeline's."),
    ("report", "report:report", "Compare two results in an HTML report and in Markdown."),
    ("card", "card:card", "Write the model card of a version in Hugging Face's form."),
    ("compare", "compare:compare", "Compare the settings and scores of the latest trainings."),
    ("promote", "promote:promote", "Give a model's alias to a version."),
    ("rollback", "rollback:rollback", "Give a model's alias back to the version that had it before."),
    ("history", "history:history", "Show who moved the aliases of a model, when and why."),
    ("lineage", "lineage:lineage", "Print where a model comes from: code, data, settings, parents and machine."),
    ("reproduce", "reproduce:reproduce", "Train a registered version again, and compare the two models."),
    ("sync", "sync:sync", "Deliver what the MLflow store has missed while it did not respond."),
    ("ui", "ui:ui", "Start MLflow's web page with runs and models."),
    ("seed-registry", "seed_registry:seed_registry", "Put the shipped model into an empty model registry."),
    ("draw-sample", "draw_sample:draw_sample", "Draw the built-in sample data set."),
):
    app.command(f"emotion_detection.commands.{function}", name=name, help=summary)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` replaces sys.argv[1:]."""
    run_app(app, arguments)
