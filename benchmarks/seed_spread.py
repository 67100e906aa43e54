"""How much do trainings differ that differ in their seed only? `reproduce` needs this for its verdict *equivalent*.

    python benchmarks/seed_spread.py --faces build/faces.npz --params params.yaml --seeds 5

Trains with each seed and prints the scores on val, their range and their standard deviation. With --record, each
training also becomes an MLflow run, with the settings and the digest of the data by which `emotion-detection reproduce`
finds the seeds of a version.
"""

import argparse
import json
import statistics
from pathlib import Path

from emotion_detection.config import Params, load_params
from emotion_detection.data.dataset import Faces, digest, load
from emotion_detection.evaluation import metrics
from emotion_detection.experiments import runs
from emotion_detection.training import trainer

SCORES = ("val_macro_f1", "val_accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=Path("build/faces.npz"), help="the faces of the prepare stage")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the settings; the seed is replaced")
    parser.add_argument("--seeds", type=int, default=5, help="number of trainings, with the seeds 1, 2, ...")
    parser.add_argument("--record", action="store_true", help="log the trainings to MLflow, for `reproduce`")
    options = parser.parse_args()
    params, faces = load_params(options.params), load(options.faces)
    found = []
    for seed in range(1, options.seeds + 1):
        found.append(scores := train(seed, params, faces))
        print(f"seed {seed}: {json.dumps(scores)}", flush=True)
        if options.record:
            record(seed, params, faces, scores)
    for name in SCORES:
        values = [scores[name] for scores in found]
        spread, deviation = max(values) - min(values), statistics.stdev(values) if len(values) > 1 else 0
        print(f"{name}: range {spread:.4f}, standard deviation {deviation:.4f}, mean {statistics.mean(values):.4f}")


def train(seed: int, params: Params, faces: Faces) -> dict[str, float]:
    """The scores on val of a training with this seed."""
    settings = params.train.model_copy(update={"seed": seed})
    model = trainer.fit(settings, faces, on_epoch=lambda _: None).model
    val = faces.of("val")
    answers = model.predict(val.images[..., None], verbose=0)
    found = metrics.scalar_metrics(metrics.evaluate(val.labels, answers, **params.evaluate.model_dump()), "val")
    return {name: round(found[name], 4) for name in SCORES}


def record(seed: int, params: Params, faces: Faces, scores: dict[str, float]) -> None:
    settings = params.model_dump(include={"prepare", "train"})
    settings["train"]["seed"] = seed
    with runs.start_run(name=f"seed {seed}", tags={"dataset_digest": digest(faces)}) as run:
        run.log_params(settings)
        run.log_scores(scores, [{}])


if __name__ == "__main__":
    main()
