"""Classes taken for one another, and whether their probabilities can be believed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mien.metrics import calibration, ranking
from mien.report.style import (
    BLUE,
    DENSITY,
    INK,
    MUTED,
    PALETTE,
    note,
    nothing,
    panel,
    plain,
    remark,
    sheet,
    shorten,
    styled,
)


@styled
def confusion(matrix: Sequence[Sequence[float]], classes: Sequence[str], title: str = "") -> Figure:
    """Faces of each true class (rows) by the class they were given (columns): share of the row, and count."""
    counts = np.asarray(matrix, dtype=np.float64).reshape(len(classes), len(classes))
    side = 1.9 + 0.78 * len(classes)
    figure = sheet(side + 1.2, side)
    axes = panel(figure.subplots(), title or "Confusion", "predicted", "true", grid="")
    if not counts.sum():
        nothing(axes, title or "Confusion", "no face carries this label")
        return figure
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    axes.imshow(shares, cmap=DENSITY, vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            share = shares[row, column]
            empty = np.isnan(share)
            axes.text(
                column, row, "no face" if empty else f"{share * 100:.1f} %\n{counts[row, column]:,.0f}",
                ha="center", va="center", fontsize=8.5, linespacing=1.3,
                color=MUTED if empty else ("white" if share > 0.55 else INK),
            )  # fmt: skip
    names = [plain(shorten(name, 16)) for name in classes]
    sizes = [f"{name}\nn {int(total):,}" for name, total in zip(names, totals[:, 0], strict=True)]
    turned = max(len(name) for name in names) > 9
    axes.set_xticks(range(len(classes)), names)
    if turned:
        for label in axes.get_xticklabels():
            label.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), sizes)
    axes.spines[:].set_visible(False)
    return figure


@styled
def class_curves(true: np.ndarray, scores: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """ROC and precision-recall curves of each class against the rest, with the area under each.

    `true` is (N,) codes, -1 where missing; `scores` (N, K) probabilities. Classes without a face have no curve.
    """
    known = (true >= 0) & np.isfinite(scores).all(axis=1)
    true, scores = true[known], scores[known]
    figure = sheet(10.5, 5.7)
    left, right = figure.subplots(1, 2)
    there = [code for code in range(len(classes)) if 0 < (true == code).sum() < len(true)]
    if not there:
        nothing(left, title or "Curves", "no two classes among the labels")
        right.axis("off")
        return figure
    panel(left, f"{title} ROC".strip(), "false positives (%)", "found (%)")
    panel(right, f"{title} precision and recall".strip(), "found (%)", "precision (%)")
    left.plot([0, 100], [0, 100], color=MUTED, lw=1, ls="--")
    for code in there:
        positive, score = true == code, scores[:, code]
        colour, name = PALETTE[code % len(PALETTE)], plain(shorten(classes[code], 16))
        false, found = ranking.roc_points(positive, score)
        areas = ranking.auroc(positive, score), ranking.average_precision(positive, score)
        left.plot(false * 100, found * 100, color=colour, lw=1.5, label=f"{name} {areas[0]:.2f}, {areas[1]:.2f}")
        recall, precision = ranking.precision_recall_points(positive, score)
        right.plot(recall * 100, precision * 100, color=colour, lw=1.5)
    figure.legend(loc="outside lower center", title="areas: ROC, precision and recall", ncols=4, fontsize=8.5)
    remark(left, "dashed: chance")
    remark(right, f"chance: the share of the class; n {len(true):,}")
    for axes in (left, right):
        axes.set_xlim(0, 101)
        axes.set_ylim(0, 101)
    return figure


@styled
def reliability(confidence: np.ndarray, correct: np.ndarray, title: str = "") -> Figure:
    """How often a prediction is right, by the probability it was given.

    `confidence` is (N,) the probability of the predicted class, NaN where there is none; `correct` is (N,) bool.
    Points carry Wilson's 95 % intervals; bins and ECE are those of `metrics.calibration`.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    known = np.isfinite(confidence)
    confidence, right = confidence[known], np.asarray(correct)[known].astype(np.float64)
    figure = sheet(5.6, 5.4)
    upper, lower = figure.subplots(2, 1, height_ratios=(3.4, 1), sharex=True)
    title = title or "Reliability"
    if not len(confidence):
        nothing(upper, title, "no face has both a label and a probability")
        lower.axis("off")
        return figure
    panel(upper, title, y="right (%)")
    panel(lower, "", "probability given (%)", "faces", grid="y")
    bins, place = calibration.BINS, calibration.confidence_bin(confidence)
    error = float(calibration.expected_calibration_error(confidence, right))
    upper.plot([0, 100], [0, 100], color=INK, lw=1, label="as promised")
    for number in range(bins):
        inside = place == number
        n = int(inside.sum())
        if not n:
            continue
        mean, share = confidence[inside].mean(), right[inside].mean()
        low, high = wilson(share, n)
        upper.plot([mean * 100] * 2, [low * 100, high * 100], color=BLUE, lw=2)
        upper.plot([mean * 100], [share * 100], "o", color=BLUE, ms=5)
        lower.bar((number + 0.5) * 100 / bins, n, width=92 / bins, color=BLUE, alpha=0.5, linewidth=0)
    upper.set_ylim(0, 102)
    upper.set_xlim(0, 101)
    upper.legend(loc="upper left")
    note(upper, f"ECE {error * 100:.1f} %\nn {len(confidence):,}", 0.98, 0.04)
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a share out of `n`, 95 % by default (Wilson, 1927)."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))
