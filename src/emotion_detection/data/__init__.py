"""The data set: reading its supported formats, splits, leaks and duplicates."""
