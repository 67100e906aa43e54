"""The `emotion-detection` command. Each subcommand is imported only when it is used."""

from collections.abc import Sequence
from importlib.metadata import version

from cyclopts import App

from emotion_detection.command_line import run_app

app = App(
    name="emotion-detection",
    help="Read facial expressions, and train the model that does it.",
    version=lambda: version("emotion-detection"),
)
app.command("emotion_detection.commands.predict:predict", name="predict")
app.command("emotion_detection.commands.data:add_data", name="data")
app.command("emotion_detection.commands.adopt:adopt", name="adopt")
app.command("emotion_detection.commands.tune:tune", name="tune")
app.command("emotion_detection.commands.soft_labels:soft_labels", name="soft-labels")
app.command("emotion_detection.commands.release:release", name="release")
app.command("emotion_detection.commands.seed_registry:seed_registry", name="seed-registry")
app.command("emotion_detection.commands.draw_sample:draw_sample", name="draw-sample")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; `arguments` replaces sys.argv[1:]."""
    run_app(app, arguments)
