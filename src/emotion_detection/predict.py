"""`python -m emotion_detection.predict` is `emotion-detection predict`."""

import sys

from emotion_detection.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
