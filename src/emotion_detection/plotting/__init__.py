"""The look of figures: style, colors and grids of faces."""
