"""Give a model's alias back to the version that had it before, with a reason that the history keeps."""

from emotion_detection.commands.promote import check_reason, name_version
from emotion_detection.inference.pretrained import ALIAS, MODEL_NAME


def rollback(name: str | None = None, /, *, reason: str, alias: str = ALIAS) -> None:
    """Move the alias back to the version that had it before.

    The register stage does not promote the present version again until `emotion-detection promote` names it.

    Parameters
    ----------
    name:
        The registered model. It may be omitted if it is `emotion-detection`, or the only one.
    reason:
        Why; the history of the model keeps this text.
    alias:
        The alias to move.
    """
    check_reason(reason)
    from emotion_detection.experiments import promotion  # MLflow takes seconds to import

    model = name or promotion.default_model(MODEL_NAME)
    move = promotion.rollback(model, alias=alias, reason=reason).move
    print(f"{model} {name_version(move.target)}: {alias}, instead of {name_version(move.source)}")
