"""Drawn faces: the built-in sample, test data and the demo's examples."""
