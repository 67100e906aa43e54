"""Give a model's alias to a version, with a reason that the history keeps."""

from emotion_detection.errors import UsageError
from emotion_detection.inference.pretrained import ALIAS


def promote(version: str, /, *, reason: str, alias: str = ALIAS) -> None:
    """Move the alias to a version, whatever a comparison says.

    This also allows the register stage to promote a version again that was rolled back.

    Parameters
    ----------
    version:
        A registered version: models:/NAME/NUMBER, or the name of another alias: models:/NAME@ALIAS.
    reason:
        Why; the history of the model keeps this text.
    alias:
        The alias to move.
    """
    check_reason(reason)
    from emotion_detection.experiments import promotion, registry  # MLflow takes seconds to import

    found = registry.resolve(version)
    entry = promotion.promote(found.name, found.number, alias=alias, reason=reason)
    if entry is None:
        print(f"{found.name} version {found.number}: {alias} already")
    else:
        print(f"{found.name} version {found.number}: {alias}, instead of {name_version(entry.move.source)}")


def check_reason(reason: str) -> None:
    """Raise UsageError if a reason has no text."""
    if not reason.strip():
        raise UsageError("--reason is empty: write why the alias moves, for the history of the model")


def name_version(number: int | None) -> str:
    """A version in a sentence."""
    return "no version" if number is None else f"version {number}"
