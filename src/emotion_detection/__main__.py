"""`python -m emotion_detection` is the `emotion-detection` command."""

from emotion_detection.cli import main

if __name__ == "__main__":
    main()
