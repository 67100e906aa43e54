"""Reports for people: the comparison of two results, and model cards."""
