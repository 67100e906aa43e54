"""Compare two results in a report: one HTML file that opens offline, and Markdown for a pull request."""

from pathlib import Path

from emotion_detection.atomic import atomic_output
from emotion_detection.errors import UsageError

REPORT = Path("report.html")


def report(
    base: str, head: str, *, output: Path = REPORT, markdown: Path | None = None, no_faces: bool = False
) -> None:
    """Compare two results, and write the report.

    Parameters
    ----------
    base:
        A git revision, a DVC experiment, an MLflow run, models:/NAME@ALIAS, models:/NAME/NUMBER, workspace or shipped.
    head:
        What to compare with it, in the same form.
    output:
        The HTML file. It contains faces of the data set: do not publish it.
    markdown:
        A Markdown file without pictures, for a pull request.
    no_faces:
        Write no faces into the HTML file.
    """
    check_output(output, ".html", "--output")
    if markdown is not None:
        check_output(markdown, ".md", "--markdown")
    from emotion_detection.experiments.store_location import project_folder
    from emotion_detection.reporting.comparison import compare_results
    from emotion_detection.reporting.flips import flipped_faces
    from emotion_detection.reporting.report import html_report, markdown_report
    from emotion_detection.reporting.sources import find_faces, find_results, with_predictions

    project = project_folder()
    sides = [find_results(reference, project) for reference in (base, head)]
    faces = find_faces(project)
    comparison = compare_results(*(with_predictions(results, faces) for results in sides))
    flips, why_none = ({}, "") if no_faces else flipped_faces(comparison, faces)
    write_text(output, html_report(comparison, flips, why_none))
    if markdown is not None:
        write_text(markdown, markdown_report(comparison))
    print("\n".join([comparison.verdict, *comparison.notes, f"Report: {output}"]))


def check_output(path: Path, suffix: str, flag: str) -> None:
    """Raise UsageError if a file of this kind cannot have this name."""
    if path.suffix != suffix or path.is_dir():
        raise UsageError(f"{flag} {path} cannot be the file to write: use a name that ends with {suffix}")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
