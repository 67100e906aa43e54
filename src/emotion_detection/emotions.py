"""The words of the data: emotions, splits and the size of a face."""

# The order of fer2013.csv, which is the label's meaning everywhere in this project. Folders sort otherwise
# (neutral before sad), so every reader maps by name, never by position.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# A face is IMAGE_SIZE x IMAGE_SIZE pixels, gray, uint8.
IMAGE_SIZE = 48

# train teaches, val (PublicTest) steers, test (PrivateTest) is only reported.
SPLITS = ("train", "val", "test")

# The comment of a zip of drawn faces, by which a reader knows it from photographs.
SAMPLE_COMMENT = b"emotion-detection sample"
