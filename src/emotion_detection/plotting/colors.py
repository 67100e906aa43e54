"""The color of each emotion in annotated frames, in figures and on the web page."""

# Any two colors differ by a CIE76 distance of about 20 or more, also for people with color blindness, and each
# contrasts with a white and with a dark background.
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
    """Parse "#RRGGBB" into three integers from 0 to 255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def luminance(color: str) -> float:
    """Return the relative luminance of an sRGB color after WCAG 2, from 0 (black) to 1 (white)."""
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in (v / 255 for v in rgb(color))]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colors after WCAG 2, from 1 (equal) to 21."""
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def text_color(background: str) -> str:
    """Return DARK or LIGHT, whichever has the higher contrast with the background."""
    return max((DARK, LIGHT), key=lambda color: contrast(color, background))
