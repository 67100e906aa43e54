"""Give a model's alias to a version, with a reason that the history keeps."""

from emotion_detection.errors import UsageError, shorten
from emotion_detection.inference.pretrained import ALIAS

SHADOW = "shadow"  # a tag of a version: what it has said as the challenger of a service, as JSON


def promote(version: str, /, *, reason: str, alias: str = ALIAS, shadow: str | None = None) -> None:
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
    shadow:
        The address of a service whose challenger is this version: its agreement with the champion is stored.
    """
    check_reason(reason)
    from emotion_detection.experiments import promotion, registry  # MLflow takes seconds to import

    found = registry.resolve(version)
    if shadow is not None:
        registry.tag_version(found.name, found.number, SHADOW, _ask(shadow, f"models:/{found.name}/{found.number}"))
    entry = promotion.promote(found.name, found.number, alias=alias, reason=reason)
    if entry is None:
        print(f"{found.name} version {found.number}: {alias} already")
    else:
        print(f"{found.name} version {found.number}: {alias}, instead of {name_version(entry.move.source)}")


def _ask(address: str, source: str) -> str:
    """What a service has counted about its challenger, as JSON. Raises UsageError if this is another version."""
    from emotion_detection.serving.comparison import read_comparison

    comparison = read_comparison(address)
    if comparison.challenger != source or comparison.agreement is None:
        challenger = shorten(comparison.challenger, 60) or "no version"
        raise UsageError(
            f"{shorten(address)} has compared {comparison.faces} faces with {challenger}, and not with {source}: "
            "promote this version without --shadow, or let it be the challenger for some time"
        )
    print(f"{source}: agreed with {comparison.champion} on {comparison.agreement:.1%} of {comparison.faces:,} faces")
    return comparison.model_dump_json()


def check_reason(reason: str) -> None:
    """Raise UsageError if a reason has no text."""
    if not reason.strip():
        raise UsageError("--reason is empty: write why the alias moves, for the history of the model")


def name_version(number: int | None) -> str:
    """A version in a sentence."""
    return "no version" if number is None else f"version {number}"
