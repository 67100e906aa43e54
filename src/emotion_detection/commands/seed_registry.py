"""Put the shipped model into a registry that has no champion."""

from emotion_detection.inference import pretrained


def seed_registry() -> None:
    """Register the shipped model as champion if the registry has no champion yet."""
    version = pretrained.seed_registry()
    print(f"{version.name} version {version.number}: {pretrained.ALIAS}")
