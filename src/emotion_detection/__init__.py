"""Emotion detection: reads facial expressions from 48x48 gray faces."""
