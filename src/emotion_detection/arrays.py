"""Names for the arrays that many modules exchange."""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (n, 48, 48) gray faces
Labels = NDArray[np.uint8]  # (n,) indices into EMOTIONS
Probabilities = NDArray[np.float32]  # (n, 7) in the order of EMOTIONS; each row sums to 1
Gray = NDArray[np.uint8]  # (height, width)
Frame = NDArray[np.uint8]  # (height, width, 3) RGB
