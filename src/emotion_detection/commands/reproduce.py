"""Train a registered version again, and say whether the same model comes out."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emotion_detection.decoding.json_text import read_json
from emotion_detection.errors import UsageError

if TYPE_CHECKING:
    from emotion_detection.experiments.reproduction import Finding

IDENTICAL, EQUIVALENT, DIFFERENT = "identical", "equivalent", "different"
MIN_SEEDS = 3  # trainings whose spread says how much a training varies


def reproduce(version: str, /, *, preflight: bool = False) -> None:
    """Train a registered version again from its recorded code, data and settings, and compare the two models.

    The training runs in a temporary git worktree and writes nothing into the project. The verdict is identical (the
    same weights), equivalent (scores on val that cannot be told apart) or different, and becomes a tag of the version.

    Parameters
    ----------
    version:
        models:/NAME/NUMBER or models:/NAME@ALIAS.
    preflight:
        Only check whether the training can start, and what differs from then.
    """
    if not version.startswith("models:/"):
        raise UsageError(f"{version} is no registered version: use models:/NAME/NUMBER or models:/NAME@ALIAS")
    from emotion_detection.experiments import lineage, reproduction
    from emotion_detection.experiments.store_location import project_folder
    from emotion_detection.reporting.data_changes import describe_changes

    project = project_folder()
    record = lineage.lineage(version, project)
    incomplete = reproduction.check_record(record, project)
    _stop_if_blocked(version, incomplete)
    with reproduction.checkout(record, project) as folder:
        findings = [*incomplete, *reproduction.preflight(record, folder, project, describe=describe_changes)]
        _stop_if_blocked(version, findings)
        print("\n".join(f"{one.subject}: {one.text}" for one in findings) or "the recorded state is complete")
        if preflight:
            return
        print(f"training {version} again", flush=True)
        reproduction.train_again(folder, project, record["data"]["dvc_md5"])
        result = compare(version, record, reproduction.outputs(folder), findings)
    _store(record["versions"][0], result)
    print(f"{version}: {result['verdict']}{''.join(f', {reason}' for reason in result['reasons'])}")
    if result["verdict"] == DIFFERENT:
        sys.exit(1)


def _stop_if_blocked(version: str, findings: "Sequence[Finding]") -> None:
    blocking = [f"{one.subject}: {one.text}" for one in findings if one.blocks]
    if blocking:
        others = [f"{one.subject}: {one.text}" for one in findings if not one.blocks]
        raise UsageError(f"{version} cannot be reproduced: {'; '.join([*blocking, *others])}")


def compare(
    version: str, record: Mapping[str, Any], outputs: Mapping[str, Path], findings: "Sequence[Finding]"
) -> dict[str, Any]:
    """The verdict about two models, with the reasons for a difference, the first cause first.

    outputs: the files of the new training, as `reproduction.outputs` names them.
    """
    from emotion_detection.experiments import registry, reproduction

    original = registry.fetch(version)
    difference = reproduction.weight_difference(original, outputs["model"])
    if not difference:
        return {"verdict": IDENTICAL, "reasons": []}
    digest, expected = read_json(outputs["report"], "digest")["digest"], record["data"]["digest"]
    is_other = expected is not None and digest != expected
    causes = [f"the prepared data has the digest {digest[:12]} instead of {expected[:12]}"] if is_other else []
    causes += ["the digest of the prepared data is not recorded"] if expected is None else []
    causes += [f"{one.subject}: {one.text}" for one in findings]
    verdict, scores = _scores(original, outputs, reproduction.seed_scores(record))
    return {"verdict": DIFFERENT if is_other else verdict, "reasons": [*causes, difference, scores]}


def _scores(original: Path, outputs: Mapping[str, Path], seeds: Sequence[float]) -> tuple[str, str]:
    """Whether two models are as alike as two trainings, and by which numbers.

    seeds: val_macro_f1 of trainings that differ in their seed only, in ascending order.
    """
    from emotion_detection.data.dataset import load
    from emotion_detection.evaluation import paired
    from emotion_detection.inference.classifier import EmotionClassifier

    val = load(outputs["faces"]).of("val")
    answers = [EmotionClassifier(path).probabilities(val.images) for path in (original, outputs["model"])]
    result = paired.compare(val.labels, *answers)
    gain = result.gains["macro_f1"]
    numbers = f"macro-F1 on val {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] (p = {result.mcnemar_p:.2g})"
    if len(seeds) >= MIN_SEEDS:
        spread = seeds[-1] - seeds[0]
        inside = abs(gain.value) <= spread
        numbers += f"; {len(seeds)} seeds of this training differ by {spread:.4f}"
    else:
        inside = result.verdict == paired.UNDECIDED and abs(result.gains["accuracy"].value) <= result.detectable_gain
        numbers += f"; this val set shows gains from {100 * result.detectable_gain:.1f} points"
    return EQUIVALENT if inside else DIFFERENT, numbers


def _store(version: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Tag the version with the verdict."""
    from emotion_detection.experiments import lineage, registry

    about = {**result, "at": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    registry.tag_version(version["name"], version["version"], lineage.REPRODUCTION, json.dumps(about))
