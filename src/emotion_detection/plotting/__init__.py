"""Plotting: the common style, the colors of emotions, and grids of faces."""
