"""Figures of readings, as PNG files: a timeline of a video, and bars of how often each emotion was read."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS
from emotion_detection.plotting.colors import COLORS, text_color
from emotion_detection.plotting.style import saved_figure

Lane = dict[int, NDArray[np.float64]]  # time bin -> (2, 7): sum of the confidences and number of readings per emotion

MAX_LANES = 8
LANE_HEIGHT = 0.85  # of 100 % confidence; the distance of two lanes is 1
MAX_BINS = 1024  # per lane: about one per pixel
FIRST_BIN_S = 0.05
LETTER_WIDTH = 0.008  # of a small letter, as a fraction of the time axis
HOLD_S = 1.0  # a reading is drawn until the person's next one, but at most this long
TICKS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


class Timeline:
    """Collects the rows of a video for a figure. The memory per person is bounded.

    Time is divided into bins. When a lane reaches MAX_BINS, each two of them are merged.
    """

    def __init__(self) -> None:
        self._bin_s = FIRST_BIN_S
        self._end_s = 0.0
        self._lanes: dict[int, Lane] = {}  # by track

    def add(self, rows: Iterable[Mapping[str, Any]], *, until_s: float = 0.0) -> None:
        """Add rows in the order of their time, with time_s, track (None counts as 0), emotion and confidence.

        The time axis ends at the last row or at `until_s`, whichever is later: a video may end without faces.
        """
        self._extend(until_s)
        for row in rows:
            self._extend(row["time_s"])
            lane = self._lanes.setdefault(row["track"] or 0, {})
            sums = lane.setdefault(int(row["time_s"] / self._bin_s), np.zeros((2, len(EMOTIONS))))
            sums[:, EMOTIONS.index(row["emotion"])] += (row["confidence"], 1)

    def _extend(self, time_s: float) -> None:
        self._end_s = max(self._end_s, time_s)
        while self._end_s >= MAX_BINS * self._bin_s:
            self._bin_s *= 2
            self._lanes = {track: _merge_bins(lane) for track, lane in self._lanes.items()}

    def draw(self, path: Path) -> None:
        """Draw a lane per person: the color is the emotion, the height its mean confidence, a gap means no face."""
        tracks = sorted(sorted(self._lanes, key=lambda track: -len(self._lanes[track]))[:MAX_LANES])
        with saved_figure(path, 10, 1.3 + 0.75 * max(len(tracks), 1)) as figure:
            axes = figure.subplots()
            for place, track in enumerate(tracks):
                self._draw_lane(axes, self._lanes[track], base=len(tracks) - 1 - place)
            _format_axes(axes, tracks, end_s=self._end_s + self._bin_s)
            axes.set_title(_title(len(tracks), len(self._lanes)))
            figure.legend(
                handles=[Patch(color=COLORS[emotion], label=emotion) for emotion in EMOTIONS],
                loc="outside lower center",
                ncols=len(EMOTIONS),
                handlelength=1,
            )

    def _draw_lane(self, axes: Axes, lane: Lane, *, base: float) -> None:
        labels, heights = self._steps(lane)
        edges_s = np.arange(len(labels) + 1) * self._bin_s
        axes.axhspan(base, base + LANE_HEIGHT, color="#F4F4F4", linewidth=0, zorder=0)
        for label, emotion in enumerate(EMOTIONS):
            tops = base + LANE_HEIGHT * np.where(labels == label, heights, 0)
            axes.stairs(tops, edges_s, baseline=base, fill=True, color=COLORS[emotion], linewidth=0)
        starts = np.flatnonzero(np.diff(labels, prepend=-2))
        for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
            emotion = EMOTIONS[labels[start]]
            if labels[start] >= 0 and end - start > LETTER_WIDTH * len(emotion) * len(labels):
                middle_s = (edges_s[start] + edges_s[end]) / 2
                axes.text(middle_s, base + 0.07, emotion, ha="center", fontsize=7, color=text_color(COLORS[emotion]))

    def _steps(self, lane: Lane) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The most frequent label in each bin, -1 without a face, and its mean confidence."""
        numbers = np.array(sorted(lane))
        sums, counts = (np.stack([lane[number][row] for number in numbers]) for row in (0, 1))
        labels_read = counts.argmax(axis=1)
        selected = np.arange(len(numbers)), labels_read
        gaps = np.diff(numbers, append=numbers[-1] + 1)
        longest = max(HOLD_S / self._bin_s, 2 * float(np.median(gaps)))  # a low frame rate is not a gap
        lengths = np.where(gaps <= longest, gaps, 1)
        bins = np.concatenate([np.arange(first, first + n) for first, n in zip(numbers, lengths, strict=True)])
        labels = np.full(int(self._end_s / self._bin_s) + 1, -1)
        heights = np.zeros(len(labels))
        labels[bins] = np.repeat(labels_read, lengths)
        heights[bins] = np.repeat(sums[selected] / counts[selected], lengths)
        return labels, heights


def draw_emotion_counts(counts: Mapping[str, int], unsure: Mapping[str, int], *, path: Path) -> None:
    """Draw how many faces were read as each emotion, as bars; the unsure part is pale."""
    total = sum(counts.values())
    with saved_figure(path, 6, 3.2) as figure:
        axes = figure.subplots()
        pale = np.array([unsure.get(emotion, 0) for emotion in EMOTIONS])
        sure = np.array([counts.get(emotion, 0) for emotion in EMOTIONS]) - pale
        colors = [COLORS[emotion] for emotion in EMOTIONS]
        axes.barh(EMOTIONS, sure, color=colors, height=0.7)
        ends = axes.barh(EMOTIONS, pale, left=sure, color=colors, alpha=0.4, height=0.7)
        texts = [f"{count:,}" if count else "" for count in sure + pale]
        axes.bar_label(ends, texts, padding=3, color="#444444")
        axes.set(xlabel="faces", title=f"Expressions read on {total:,} faces" + ", pale: unsure" * bool(pale.any()))
        axes.set_xlim(0, 1.12 * max(total and (sure + pale).max(), 1))  # leaves room for the counts
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x")
        axes.invert_yaxis()


def _merge_bins(lane: Lane) -> Lane:
    merged: Lane = {}
    for number, sums in lane.items():
        merged[number // 2] = merged.get(number // 2, 0) + sums
    return merged


def _format_axes(axes: Axes, tracks: Sequence[int], *, end_s: float) -> None:
    step_s = next((step for step in TICKS_S if end_s / step <= 10), TICKS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda time_s, _: _clock(time_s, tenths=step_s < 1)))
    axes.set(xlim=(0, end_s), ylim=(-0.05, max(len(tracks), 1)), ylabel="person")
    centers = [len(tracks) - 1 - place + LANE_HEIGHT / 2 for place in range(len(tracks))]
    axes.set_yticks(centers, [str(track) for track in tracks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _clock(time_s: float, *, tenths: bool) -> str:
    if tenths:
        return f"{time_s:.1f} s"
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _title(shown: int, people: int) -> str:
    if not people:
        return "No faces"
    who = f"{shown} of {people:,} people, the longest in view" if shown < people else f"{people} people"
    return f"Expressions read over time, {'1 person' if people == 1 else who}; the height is the confidence, 0 to 100 %"
