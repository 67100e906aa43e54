"""Detect faces, classify their expressions and track people through a video. Needs no training library."""
