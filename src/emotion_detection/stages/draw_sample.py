"""Draw the built-in sample: python -m emotion_detection.stages.draw_sample sample/sample.zip"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from emotion_detection.synthetic import write_sample


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="the zip to write")
    parser.add_argument("--per-class", type=int, default=200, help="faces of each emotion (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2013, help="another seed draws other people (default: %(default)s)")
    args = parser.parse_args(argv)
    args.archive.parent.mkdir(parents=True, exist_ok=True)
    write_sample(args.archive, per_class=args.per_class, seed=args.seed)


if __name__ == "__main__":
    main()
