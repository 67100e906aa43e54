import pytest

from emotion_detection.synthetic.sample import draw_faces


@pytest.fixture(scope="session")
def drawn_faces():
    """Seven drawn faces of different people, u8 (7, 48, 48); the cascade detects all of them."""
    return draw_faces(per_class=1, seed=1)[0]
