"""Emotions, splits and the size of a face image."""

# A label is an index into EMOTIONS, in the order of fer2013.csv. Alphabetical folders have another order (neutral
# before sad), so every reader maps labels by name, never by position.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# A face image has IMAGE_SIZE x IMAGE_SIZE gray pixels of type uint8.
IMAGE_SIZE = 48

# Training uses train, every choice uses val (PublicTest), and test (PrivateTest) is only reported.
SPLITS = ("train", "val", "test")

# The comment of a zip file with drawn faces, which distinguishes it from photographs.
SAMPLE_COMMENT = b"emotion-detection sample"
