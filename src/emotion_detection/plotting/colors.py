"""One colour an emotion, the same in drawn frames, in figures and on the page."""

# Chosen so that any two stay apart (CIE76 difference of 20 and more) for eyes without red, green or blue cones too,
# and none sinks into white paper or into a dark page.
COLORS = {
    "angry": "#CB2A20",
    "disgust": "#2E9B55",
    "fear": "#A23BA6",
    "happy": "#DBA520",
    "sad": "#2456E8",
    "surprise": "#2FB9E8",
    "neutral": "#9A9A9A",
}
DARK, LIGHT = "#14161A", "#FFFFFF"


def rgb(color: str) -> tuple[int, int, int]:
    """The three bytes of "#RRGGBB"."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def luminance(color: str) -> float:
    """WCAG 2's relative luminance of an sRGB colour, 0 (black) to 1 (white)."""
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in (v / 255 for v in rgb(color))]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two colours, 1 (the same) to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def ink(color: str) -> str:
    """DARK or LIGHT, whichever is easier to read on the colour."""
    return max((DARK, LIGHT), key=lambda letters: contrast(letters, color))
