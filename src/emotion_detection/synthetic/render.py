"""Draw a face that shows an emotion.

Lengths are in face units: half the width of the head is 1, and y points down. Random parameters describe a person,
facial action units change them, and the resulting height map is shaded and degraded like a photo of low quality.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np
from numpy.typing import NDArray

from emotion_detection.arrays import Gray
from emotion_detection.emotions import IMAGE_SIZE
from emotion_detection.synthetic.action_units import MOVES, OPTIONAL, PEOPLE, PROTOTYPES

Field = NDArray[np.float64]  # (h,w), one value per pixel
Shape = SimpleNamespace  # a person with an expression: the parameters in PEOPLE, changed by MOVES


@dataclass(frozen=True)
class Grid:
    """Coordinates of each pixel, all (h,w): x, y in the image, u, v on the rotated face, z towards the viewer."""

    x: Field
    y: Field
    u: Field
    v: Field
    z: Field
    pixel: float  # the width of a pixel in face units

    def inside(self, distance: Field) -> Field:
        """1 where the signed distance (face units) is positive and 0 where it is negative, blended over two pixels."""
        return np.clip(distance / (2 * self.pixel) + 0.5, 0, 1)


def _bump(x: Field, y: Field, x_size: float, y_size: float) -> Field:
    """A Gaussian with a maximum of 1 at x = y = 0."""
    return np.exp(-((x / x_size) ** 2) - (y / y_size) ** 2)


def random_shape(emotion: str, rng: np.random.Generator, **fixed: float) -> Shape:
    """Return a random person who shows the emotion with a random intensity; `fixed` sets parameters."""
    shape = {name: float(rng.uniform(low, high)) for name, (low, high) in PEOPLE.items()}
    intensity = rng.uniform(0.5, 1.15)
    units = {unit: weight * intensity * rng.uniform(0.7, 1.2) for unit, weight in PROTOTYPES[emotion].items()}
    if rng.random() < 0.4:
        units[OPTIONAL[emotion]] = units.get(OPTIONAL[emotion], 0.0) + rng.uniform(0.2, 0.8) * intensity
    unrelated = int(rng.choice(list(MOVES)))  # people also talk and squint
    units[unrelated] = units.get(unrelated, 0.0) + rng.uniform(0.0, 0.25)
    for unit, weight in units.items():
        for name, move in MOVES[unit].items():
            shape[name] += weight * move
    return SimpleNamespace(**(shape | fixed))


def _grid(shape: Shape, size_px: int) -> Grid:
    """Convert pixels to face units: zoom, shift and roll, then yaw and pitch of an egg-shaped head."""
    axis = ((np.arange(size_px) + 0.5) / size_px * 2 - 1) * shape.zoom
    across, down = np.meshgrid(axis + shape.shift_x, axis + shape.shift_y)
    cos, sin = np.cos(shape.roll), np.sin(shape.roll)
    x, y = cos * across + sin * down, cos * down - sin * across
    below = np.clip(y, 0, None)
    half_width = 1 - shape.taper * below**1.5
    half_height = shape.tall + shape.jaw * (y > 0)
    z = np.sqrt(np.clip(1 - (x / half_width) ** 2 - np.abs(y / half_height) ** 2.6, 0, 1))
    u = x * np.cos(shape.yaw) - z * np.sin(shape.yaw)
    v = y * np.cos(shape.pitch) - z * np.sin(shape.pitch)
    return Grid(x, y, u, v, z, 2 * shape.zoom / size_px)


def _brows(grid: Grid, shape: Shape) -> Field:
    """Coverage by the eyebrows, 0..1."""
    along = (np.abs(grid.u) - shape.brow_gap) / shape.brow_w
    t = np.clip(along, 0, 1)
    middle = shape.brow_y - shape.brow_inner * (1 - t) ** 1.3 - shape.brow_outer * t
    middle = middle - shape.arch * 4 * t * (1 - t) + 0.10 * t**3
    thick = shape.brow_thick * (1 - 0.65 * t**2)
    ends = (0.5 - np.abs(along - 0.5)) * shape.brow_w
    return shape.brow_dark * grid.inside(thick - np.abs(grid.v - middle)) * grid.inside(ends)


def _eyes(grid: Grid, shape: Shape) -> tuple[Field, Field, Field]:
    """The opening 0..1, the eyeball's gray 0..1, and the dark lines of the lids 0..1."""
    t = (np.abs(grid.u) - shape.eye_x) / shape.eye_w
    arc = np.clip(1 - t**2, 0, 1)
    level = grid.v - shape.eye_y + shape.eye_tilt * t
    upper = level + max(shape.lid_upper, 0.01) * arc**0.7
    lower = max(shape.lid_lower, 0.0) * arc - level
    lines = np.exp(-((upper / 0.018) ** 2)) + 0.35 * np.exp(-((lower / 0.015) ** 2))
    crease = 0.4 * np.exp(-(((upper + 0.055) / 0.02) ** 2))
    opening = grid.inside(np.minimum(upper, lower)) * (arc > 0)
    return opening, _eyeballs(grid, shape, level), np.clip((lines + crease) * np.sqrt(arc), 0, 1)


def _eyeballs(grid: Grid, shape: Shape, level: Field) -> Field:
    """White, iris, pupil and highlight, gray 0..1; `level` is the distance below the axis of the eyes."""
    aside = np.abs(grid.u) - shape.eye_x - shape.gaze * np.sign(grid.u)
    radius = np.hypot(aside, level + 0.015)
    iris = grid.inside(0.088 - radius)
    ball = 0.82 - (0.82 - shape.iris) * iris - 0.1 * np.clip(radius / 0.2, 0, 1)
    return ball * (1 - 0.9 * grid.inside(0.04 - radius)) + 0.8 * _bump(aside - 0.03, level + 0.045, 0.02, 0.02)


def _mouth(grid: Grid, shape: Shape) -> tuple[Field, Field, Field]:
    """The lips 0..1, the opening 0..1, and the gray 0..1 of the mouth's inside."""
    t = grid.u / max(shape.width, 0.15)
    arc = np.clip(1 - t**2, 0, 1)
    lift = shape.corner * (1 + shape.lopsided * np.sign(grid.u))
    line = shape.mouth_y + 0.35 * shape.corner - lift * np.abs(t) ** 1.8
    above, below = grid.v - line + shape.rise * arc, line + shape.drop * arc**0.6 - grid.v
    lip, bow = max(shape.lip, 0.012), 1 - 0.35 * np.exp(-((t / 0.16) ** 2))
    lips = grid.inside(np.minimum(above + lip * 0.8 * bow * arc**0.7, below + lip * 1.1 * arc**0.6))
    opening = grid.inside(np.minimum(above, below) - 0.004)
    closed = shape.drop + shape.rise < 0.06
    seam = closed * np.exp(-(((grid.v - line) / 0.018) ** 2)) * np.clip(arc * 3, 0, 1)
    teeth = shape.teeth * grid.inside(0.08 - above) * np.clip(arc * 1.6, 0, 1)
    shown = (0.12 + 0.7 * teeth) * (1 - seam)
    return lips * (arc > 0), np.clip(opening * (arc > 0) + seam, 0, 1), shown


def _bones(grid: Grid, shape: Shape) -> Field:
    """Height of the relaxed face above the image plane, face units."""
    side, v = np.abs(grid.u), grid.v
    wings = 0.10 * _bump(side - shape.nostril, v - shape.nose_y, 0.07, 0.08)
    sockets = 0.17 * _bump(side - shape.eye_x, v - shape.eye_y + 0.04, 0.27, 0.16)
    ridge = 0.06 * _bump(side - 0.35, v - shape.brow_y, 0.4, 0.10)
    chin = 0.07 * _bump(grid.u, v - 1.02 - shape.jaw, 0.25, 0.16)
    return 0.95 * grid.z**1.2 + _nose(grid, shape) + wings - sockets + ridge + chin


def _nose(grid: Grid, shape: Shape) -> Field:
    """Height of the nose, face units: a ridge that widens and rises from between the eyes to the tip."""
    top = shape.eye_y - 0.1
    ramp = np.clip((grid.v - top) / (shape.nose_y - top), 0, 1)
    root = 0.08 * _bump(ramp, grid.v - top, 1.0, 0.25)
    ridge = np.exp(-((grid.u / (0.1 + shape.nose_w * ramp**2)) ** 2))
    end = 1 / (1 + np.exp(np.clip((grid.v - shape.nose_y - 0.05) / 0.03, -30, 30)))
    return 0.26 * ridge * (ramp**1.3 + root) * end


def _folds(grid: Grid, shape: Shape) -> Field:
    """Height of cheeks and of folds by expression and age, face units."""
    side, v = np.abs(grid.u), grid.v
    along = (v - shape.nose_y + 0.04) / (shape.mouth_y - shape.nose_y)
    reach = shape.nostril + 0.05 + (shape.width + 0.06 - shape.nostril) * along.clip(0, 1.3)
    smile = 0.045 * shape.fold * np.exp(-(((side - reach) / 0.045) ** 2) - ((along - 0.5) / 0.6) ** 4)
    cheeks = (0.05 + 0.09 * shape.cheek) * _bump(side - 0.56, v - 0.24 + 0.06 * shape.cheek, 0.24, 0.17)
    bags = 0.02 * shape.age * _bump(side - shape.eye_x, v - shape.eye_y - 0.15, 0.17, 0.03)
    dimples = 0.02 * shape.chin * _bump(grid.u, v - shape.mouth_y - 0.2, 0.2, 0.05)
    return cheeks - smile - bags - dimples


def _wrinkles(grid: Grid, shape: Shape) -> Field:
    """Height of forehead lines, frown, nose wrinkles and crow's feet, face units."""
    side, v = np.abs(grid.u), grid.v
    lines = np.cos((v + 0.08 * grid.u**2) * 48) * _bump(grid.u, v + 0.68, 0.55, 0.13)
    frown = _bump(side - 0.075, v - shape.brow_y - 0.02, 0.025, 0.13)
    bridge = np.cos(v * 62 + 6 * side) * _bump(grid.u, v - shape.eye_y, 0.17, 0.15)
    outer = side - shape.eye_x - shape.eye_w - 0.12
    crow = np.cos((v - shape.eye_y) * 60 / (1 + 2 * outer)) * _bump(outer, v + 0.13, 0.1, 0.13)
    creased = 0.010 * shape.lines * lines - 0.035 * shape.frown * frown
    return creased + 0.012 * shape.wrinkle * bridge + 0.008 * shape.crow * crow


def _shade(height: Field, grid: Grid, shape: Shape) -> Field:
    """Lambertian shading by one lamp and ambient light. Hollows, which lie below the blurred height, are darker."""
    rise_y, rise_x = np.gradient(height, grid.pixel)
    lamp = np.array([shape.light_x, shape.light_y - 0.25, 1.2])
    lamp = lamp / np.linalg.norm(lamp)
    cosine = (lamp[2] - lamp[0] * rise_x - lamp[1] * rise_y) / np.sqrt(1 + rise_x**2 + rise_y**2)
    hollow = height - cv2.GaussianBlur(height, (0, 0), 0.09 / grid.pixel)
    light = shape.ambient + (1.05 - shape.ambient) * np.clip(cosine, 0, None)
    return light * np.clip(1 + 3.0 * hollow, 0.5, 1.12)


def noise(rng: np.random.Generator, cells: int, size_px: int) -> Field:
    """Return smooth noise with a variance of about 1, (size_px,size_px)."""
    return cv2.resize(rng.normal(size=(cells, cells)), (size_px, size_px), interpolation=cv2.INTER_CUBIC)


def _skin(grid: Grid, shape: Shape, rng: np.random.Generator) -> Field:
    """The shaded head without hair, gray 0..1."""
    lips, mouth, shown = _mouth(grid, shape)
    height = _bones(grid, shape) + _folds(grid, shape) + _wrinkles(grid, shape) + 0.035 * lips
    tone = _complexion(grid, shape, rng) * (1 - (1 - shape.lip_dark) * lips)
    skin = _shade(height, grid, shape) * tone * (1 - _brows(grid, shape))
    eyes, balls, lids = _eyes(grid, shape)
    skin = composite(skin, eyes, balls * (0.55 + 0.75 * shape.ambient)) * (1 - 0.65 * lids)
    return composite(skin, mouth, shown)


def _complexion(grid: Grid, shape: Shape, rng: np.random.Generator) -> Field:
    """Gray 0..1 of the unshaded skin: blotches, eye shadows, nostrils and beard."""
    side, v, size_px = np.abs(grid.u), grid.v, len(grid.u)
    tone = shape.skin * (1 + 0.03 * noise(rng, 12, size_px))
    tone = tone * (1 - 0.16 * _bump(side - shape.eye_x, v - shape.eye_y + 0.08, 0.25, 0.13))
    tone = tone * (1 - 0.6 * _bump(side - 0.55 * shape.nostril, v - shape.nose_y - 0.05, 0.05, 0.03))
    jaw = grid.inside(v - 0.35 - 0.5 * np.clip(0.75 - side, 0, 1))
    beard = np.clip(jaw + _bump(grid.u, v - 0.47, 0.3, 0.06), 0, 1)  # including the mustache
    stubble = 0.85 + 0.2 * noise(rng, size_px // 2, size_px)
    return tone * (1 - 0.55 * max(shape.beard, 0) * beard * stubble)


def composite(below: Field, cover: Field, above: Field | float) -> Field:
    """Composite `above` over `below`, where `cover` is the opacity 0..1."""
    return below + cover * (above - below)


def draw_portrait(shape: Shape, rng: np.random.Generator, size_px: int) -> tuple[Field, Field]:
    """Draw a head with hair and shoulders. Return its gray 0..1 and its opacity 0..1, both (size_px,size_px)."""
    grid = _grid(shape, size_px)
    strands = shape.hair * (1 + 0.15 * noise(rng, 40, size_px) * np.clip(1 - grid.y, 0.3, 1))
    hair = _hair(grid, shape)
    body, cloth = _body(grid, shape)
    ears = grid.inside(1 - np.hypot((np.abs(grid.x) - 0.97) / 0.12, (grid.y - 0.05) / 0.26))
    head = grid.inside((grid.z - 0.04) * 0.5)
    picture = composite(composite(strands, body, cloth), ears * (1 - hair), shape.skin * 0.7)
    picture = composite(picture, head, _skin(grid, shape, rng))
    hairline = shape.hairline + 0.35 * grid.u**2 + 0.2 * shape.long_hair * grid.u
    fringe = grid.inside(hairline + 0.04 * noise(rng, 14, size_px) - grid.v)
    picture = composite(picture, fringe * hair * head, strands)
    if shape.glasses > 0:
        picture = _glasses(picture, grid, shape)
    return picture, np.clip(hair + body + ears + head, 0, 1)


def _hair(grid: Grid, shape: Shape) -> Field:
    """Coverage by hair, 0..1. A person is bald or has short or shoulder-length hair."""
    cap = np.minimum(1.10 - np.hypot(grid.x / 1.02, grid.y / (shape.tall + 0.02)), 0.25 - grid.y)
    locks = np.minimum(1.16 + 0.1 * grid.y - np.abs(grid.x), np.minimum(grid.y + 0.1, 1.25 - grid.y))
    hair = np.maximum(cap, locks) if shape.long_hair > 0.35 else cap
    return grid.inside(hair) * (shape.bald < 0)


def _body(grid: Grid, shape: Shape) -> tuple[Field, Field]:
    """Coverage by neck and shoulders 0..1, and their gray 0..1. The head casts a shadow on the neck."""
    shoulders = grid.y - 1.40 - 0.10 * grid.x**2
    neck = np.minimum(0.56 - np.abs(grid.x), grid.y)
    shadow = shape.skin * (0.45 + 0.2 * shape.ambient)
    return grid.inside(np.maximum(neck, shoulders)), shadow * np.where(shoulders > 0, shape.hair + 0.4, 1)


def _glasses(picture: Field, grid: Grid, shape: Shape) -> Field:
    aside, level = np.abs(grid.u) - shape.eye_x, grid.v - shape.eye_y - 0.03
    ring = ((np.abs(aside) / 0.31) ** 3 + (np.abs(level) / 0.24) ** 3) ** (1 / 3)
    frame = grid.inside(0.025 - 0.27 * np.abs(ring - 1))
    bars = grid.inside(0.02 - np.abs(level + 0.05)) * ((aside > 0.31) | (aside < -0.31))
    return composite(picture, np.clip(frame + bars, 0, 1) * (grid.z > 0.05), 0.15)


def photograph(picture: Field, size_px: int, rng: np.random.Generator) -> Gray:
    """Apply occlusion, blur, downsampling and a cheap camera: gray 0..1 to u8 (size_px,size_px)."""
    if rng.random() < 0.1:
        picture = _occlude(picture, rng)
    blur_px = rng.uniform(0.2, 0.9) * picture.shape[0] / IMAGE_SIZE
    soft = cv2.GaussianBlur(picture, (0, 0), blur_px)
    return expose(cv2.resize(soft, (size_px, size_px), interpolation=cv2.INTER_AREA), rng)


def expose(picture: Field, rng: np.random.Generator) -> Gray:
    """Apply gain, gamma, offset and sensor noise: gray 0..1 to u8."""
    gain, gamma, offset = rng.uniform(0.8, 1.12), rng.uniform(0.7, 1.1), rng.uniform(-0.03, 0.06)
    noisy = (
        gain * np.clip(picture, 0, None) ** gamma + offset + rng.normal(size=picture.shape) * rng.uniform(0.003, 0.022)
    )
    return np.clip(noisy * 255, 0, 255).astype(np.uint8)


def _occlude(picture: Field, rng: np.random.Generator) -> Field:
    """Cover a part at the edge with a blurred rectangle, such as a hand, a scarf or a shadow."""
    size = picture.shape[0]
    cover = np.zeros_like(picture)
    angle = rng.uniform(0, 2 * np.pi)
    center = (0.5 + rng.uniform(0.42, 0.55) * np.array([np.cos(angle), np.sin(angle)])) * size
    sides = (size * rng.uniform(0.15, 0.3), size * rng.uniform(0.3, 0.6))
    box = (center.tolist(), sides, float(rng.uniform(0, 180)))
    cv2.fillPoly(cover, [cv2.boxPoints(box).astype(np.int32)], 1.0, cv2.LINE_AA)
    return composite(picture, cv2.GaussianBlur(cover, (0, 0), size / 60), float(rng.uniform(0.1, 0.8)))
