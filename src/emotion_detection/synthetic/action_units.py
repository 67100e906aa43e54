"""Parameters of drawn faces: their ranges, and how facial action units change them."""

# The action units of each emotion after the EMFACS table (Ekman & Friesen, Facial Action Coding System, 1978,
# revised with Hager 2002). The weights, for full intensity, were chosen by eye.
PROTOTYPES: dict[str, dict[int, float]] = {
    "angry": {4: 1.0, 5: 0.5, 7: 0.9, 23: 1.0},
    "disgust": {9: 1.0, 10: 0.8, 15: 0.6, 16: 0.7},
    "fear": {1: 1.0, 2: 0.6, 4: 0.6, 5: 1.0, 20: 1.0, 26: 0.45},
    "happy": {6: 1.0, 12: 1.0},
    "sad": {1: 1.0, 4: 0.5, 15: 1.0, 17: 0.6},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.9, 26: 1.0},
    "neutral": {},
}
# One more unit that sometimes accompanies an emotion. For example, a grin may part the lips.
OPTIONAL = {"happy": 25, "angry": 25, "disgust": 4, "surprise": 25, "sad": 7, "fear": 25, "neutral": 25}

# The change of each parameter by one full unit, chosen by eye: lengths in face units, depths from 0 to 1.
MOVES: dict[int, dict[str, float]] = {
    1: {"brow_inner": 0.19, "lines": 0.5},
    2: {"brow_outer": 0.17, "lines": 0.5},
    4: {"brow_inner": -0.16, "brow_outer": -0.04, "brow_gap": -0.07, "frown": 1.0},
    5: {"lid_upper": 0.085},
    6: {"lid_lower": -0.045, "cheek": 1.0, "crow": 1.0},
    7: {"lid_upper": -0.035, "lid_lower": -0.03},
    9: {
        "wrinkle": 1.0,
        "brow_inner": -0.09,
        "nose_y": -0.06,
        "fold": 0.7,
        "lid_lower": -0.03,
        "nostril": 0.04,
    },
    10: {"rise": 0.10, "fold": 0.5},
    12: {"corner": 0.26, "width": 0.14, "fold": 0.9, "lip": -0.015},
    15: {"corner": -0.19, "fold": 0.2},
    16: {"drop": 0.07},
    17: {"mouth_y": -0.04, "chin": 1.0, "lip": 0.01},
    20: {"width": 0.14, "corner": -0.05, "lip": -0.015},
    23: {"lip": -0.045, "width": -0.05, "chin": 0.4},
    25: {"drop": 0.11, "rise": 0.04},
    26: {"drop": 0.30, "rise": 0.10, "jaw": 0.14, "width": -0.14, "mouth_y": 0.02},
}

# The range of each parameter for a person with a relaxed face, as (low, high).
PEOPLE: dict[str, tuple[float, float]] = {
    "tall": (1.2, 1.34), "taper": (0.1, 0.3), "skin": (0.5, 0.95), "hair": (0.05, 0.5),
    "hairline": (-0.95, -0.62), "eye_x": (0.38, 0.46), "eye_y": (-0.2, -0.1), "eye_w": (0.18, 0.23),
    "eye_tilt": (-0.02, 0.03), "lid_upper": (0.07, 0.1), "lid_lower": (0.045, 0.065), "iris": (0.05, 0.35),
    "gaze": (-0.05, 0.05), "brow_y": (-0.46, -0.37), "brow_inner": (-0.03, 0.03),
    "brow_outer": (-0.04, 0.03), "brow_gap": (0.15, 0.22), "brow_w": (0.42, 0.5),
    "brow_thick": (0.04, 0.08), "brow_dark": (0.45, 0.85), "arch": (0.0, 0.07), "nose_y": (0.22, 0.34),
    "nose_w": (0.11, 0.17), "nostril": (0.13, 0.19), "mouth_y": (0.6, 0.7), "width": (0.32, 0.42),
    "corner": (-0.035, 0.035), "lip": (0.05, 0.1), "rise": (0.0, 0.01), "drop": (0.0, 0.015),
    "jaw": (-0.02, 0.02), "lip_dark": (0.55, 0.8), "teeth": (0.5, 1.0), "lopsided": (-0.2, 0.2),
    "fold": (0.0, 0.5), "lines": (0.0, 0.25), "frown": (0.0, 0.25), "cheek": (0.0, 0.3), "crow": (0.0, 0.3),
    "wrinkle": (0.0, 0.1), "chin": (0.0, 0.3), "age": (0.0, 1.0), "beard": (-3.0, 1.0),
    "glasses": (-6.0, 1.0), "long_hair": (-1.0, 1.0), "bald": (-9.0, 1.0), "yaw": (-0.22, 0.22),
    "pitch": (-0.1, 0.1), "roll": (-0.09, 0.09), "zoom": (1.06, 1.16), "shift_x": (-0.05, 0.05),
    "shift_y": (-0.02, 0.08), "light_x": (-0.9, 0.9), "light_y": (-0.9, 0.2), "ambient": (0.35, 0.6),
}  # fmt: skip
