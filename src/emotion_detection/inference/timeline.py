"""Figures of readings: who showed what when, and how often each emotion was read. Each writes one PNG."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from emotion_detection.emotions import EMOTIONS
from emotion_detection.plotting.colors import COLORS, ink
from emotion_detection.plotting.style import saved_figure

Lane = dict[int, NDArray[np.float64]]  # bin -> confidences summed, and counted, by label (2,7)

LANES = 8  # people a figure can show
LANE = 0.85  # the height of 100 %, one person being 1
BINS = 1024  # of a lane: as many as its pixels
FIRST_BIN_S = 0.05
LETTER = 0.008  # the width of a small letter, the whole time being 1
HOLD_S = 1.0  # a reading stands until the next one of the same person, but not longer
TICKS_S = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)


class Timeline:
    """Rows of a video, gathered for one figure; the memory for a person is bounded, however long the video.

    Time is cut into bins, each with the sum of the confidences of every emotion and the number of readings;
    when a lane has BINS of them, every two become one.
    """

    def __init__(self) -> None:
        self._bin_s = FIRST_BIN_S
        self._end_s = 0.0
        self._lanes: dict[int, Lane] = {}  # by track

    def add(self, rows: Iterable[Mapping[str, Any]], *, until_s: float = 0.0) -> None:
        """Rows in the order of their time, with time_s, track (None counts as 0), emotion and confidence.

        The figure reaches to the last row, and at least to until_s: a video goes on where nobody is in view.
        """
        self._reach(until_s)
        for row in rows:
            self._reach(row["time_s"])
            lane = self._lanes.setdefault(row["track"] or 0, {})
            sums = lane.setdefault(int(row["time_s"] / self._bin_s), np.zeros((2, len(EMOTIONS))))
            sums[:, EMOTIONS.index(row["emotion"])] += (row["confidence"], 1)

    def _reach(self, at_s: float) -> None:
        self._end_s = max(self._end_s, at_s)
        while self._end_s >= BINS * self._bin_s:
            self._bin_s *= 2
            self._lanes = {track: _halved(lane) for track, lane in self._lanes.items()}

    def draw(self, path: Path) -> None:
        """One lane a person: the colour is the emotion, the height its mean confidence, a gap is no face."""
        tracks = sorted(sorted(self._lanes, key=lambda track: -len(self._lanes[track]))[:LANES])
        with saved_figure(path, 10, 1.3 + 0.75 * max(len(tracks), 1)) as figure:
            axes = figure.subplots()
            for place, track in enumerate(tracks):
                self._draw_lane(axes, self._lanes[track], base=len(tracks) - 1 - place)
            _dress(axes, tracks, end_s=self._end_s + self._bin_s)
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
        axes.axhspan(base, base + LANE, color="#F4F4F4", linewidth=0, zorder=0)
        for label, emotion in enumerate(EMOTIONS):
            tops = base + LANE * np.where(labels == label, heights, 0)
            axes.stairs(tops, edges_s, baseline=base, fill=True, color=COLORS[emotion], linewidth=0)
        starts = np.flatnonzero(np.diff(labels, prepend=-2))
        for start, end in zip(starts, [*starts[1:], len(labels)], strict=True):
            emotion = EMOTIONS[labels[start]]
            if labels[start] >= 0 and end - start > LETTER * len(emotion) * len(labels):
                middle_s = (edges_s[start] + edges_s[end]) / 2
                axes.text(middle_s, base + 0.07, emotion, ha="center", fontsize=7, color=ink(COLORS[emotion]))

    def _steps(self, lane: Lane) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Of each bin of a lane, the label (-1 without a face) and the confidence that is shown."""
        numbers = np.array(sorted(lane))
        sums, counts = (np.stack([lane[number][row] for number in numbers]) for row in (0, 1))
        winners = counts.argmax(axis=1)
        picked = np.arange(len(numbers)), winners
        gaps = np.diff(numbers, append=numbers[-1] + 1)
        longest = max(HOLD_S / self._bin_s, 2 * float(np.median(gaps)))  # a slow camera's readings are no gaps
        held = np.where(gaps <= longest, gaps, 1)
        places = np.concatenate([np.arange(first, first + count) for first, count in zip(numbers, held, strict=True)])
        labels = np.full(int(self._end_s / self._bin_s) + 1, -1)
        heights = np.zeros(len(labels))
        labels[places] = np.repeat(winners, held)
        heights[places] = np.repeat(sums[picked] / counts[picked], held)
        return labels, heights


def _halved(lane: Lane) -> Lane:
    coarse: Lane = {}
    for number, sums in lane.items():
        coarse[number // 2] = coarse.get(number // 2, 0) + sums
    return coarse


def timeline(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """The figure of a video's rows, in the order of their time, each with time_s, track, emotion and confidence."""
    lanes = Timeline()
    lanes.add(rows)
    lanes.draw(path)


def _dress(axes: Axes, tracks: Sequence[int], *, end_s: float) -> None:
    step_s = next((step for step in TICKS_S if end_s / step <= 10), TICKS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at_s, _: _clock(at_s, fine=step_s < 1)))
    axes.set(xlim=(0, end_s), ylim=(-0.05, max(len(tracks), 1)), ylabel="person")
    axes.set_yticks([len(tracks) - 1 - place + LANE / 2 for place in range(len(tracks))], [str(t) for t in tracks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _clock(at_s: float, *, fine: bool) -> str:
    if fine:
        return f"{at_s:.1f} s"
    minutes, seconds = divmod(round(at_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _title(shown: int, people: int) -> str:
    if not people:
        return "No face was found"
    who = f"the {shown} seen longest of {people:,} people" if shown < people else f"{people} people"
    return f"Expressions read over time, {'1 person' if people == 1 else who}; the height is the confidence, 0 to 100 %"


def shares(counts: Mapping[str, int], unsure: Mapping[str, int], *, path: Path) -> None:
    """How many faces each emotion was read on, as bars; the part that is unsure is pale."""
    total = sum(counts.values())
    with saved_figure(path, 6, 3.2) as figure:
        axes = figure.subplots()
        pale = np.array([unsure.get(emotion, 0) for emotion in EMOTIONS])
        sure = np.array([counts.get(emotion, 0) for emotion in EMOTIONS]) - pale
        colours = [COLORS[emotion] for emotion in EMOTIONS]
        axes.barh(EMOTIONS, sure, color=colours, height=0.7)
        ends = axes.barh(EMOTIONS, pale, left=sure, color=colours, alpha=0.4, height=0.7)
        texts = [f"{count:,}" if count else "" for count in sure + pale]
        axes.bar_label(ends, texts, padding=3, color="#444444")
        axes.set(xlabel="faces", title=f"Expressions read on {total:,} faces" + ", pale: unsure" * bool(pale.any()))
        axes.set_xlim(0, 1.12 * max(total and (sure + pale).max(), 1))  # room for the counts
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(axis="x")
        axes.invert_yaxis()
