"""From frames to readings: detect faces, classify them, follow people. No training library is imported."""
