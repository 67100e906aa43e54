"""The stages of the DVC pipeline, one file each."""
