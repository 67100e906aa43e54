"""The commands: each opens files, calls functions of the layers below, and closes files."""
