"""The data set: reading its known forms, splits, leaks and duplicates."""
