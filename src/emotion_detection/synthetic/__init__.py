"""Drawn faces for the built-in sample, the tests and the examples of the demo."""
