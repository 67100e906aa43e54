"""Write the model card of a result in Hugging Face's form."""

from pathlib import Path

from emotion_detection.commands.report import check_output, write_text


def card(reference: str, *, output: Path | None = None) -> None:
    """Write the model card of a version, or print it.

    Parameters
    ----------
    reference:
        models:/NAME@ALIAS, models:/NAME/NUMBER, shipped, an MLflow run, a git revision, a DVC experiment or workspace.
    output:
        The Markdown file to write, such as README.md. An existing file is replaced.
    """
    if output is not None:
        check_output(output, ".md", "--output")
    from emotion_detection.experiments.store_location import project_folder
    from emotion_detection.reporting.model_card import find_subject, model_card

    text = model_card(find_subject(reference, project_folder()))
    if output is None:
        print(text, end="")
    else:
        write_text(output, text)
        print(f"Model card: {output}")
