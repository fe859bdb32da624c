"""Every figure the package draws: a function from arrays and dicts to a `matplotlib.figure.Figure`."""

from mien.report.figures.affect import affect_plane
from mien.report.figures.age import cumulative_score, error_analysis, training_count
from mien.report.figures.classes import class_curves, confusion, reliability
from mien.report.figures.dataset import affect_analysis, dataset_analysis
from mien.report.figures.pictures import contact_sheet, right_and_wrong, worst_predictions
from mien.report.figures.training import training_history
from mien.report.figures.uncertainty import coverage, spread_reliability
from mien.report.style import save, to_base64

__all__ = [
    "affect_analysis",
    "affect_plane",
    "class_curves",
    "confusion",
    "contact_sheet",
    "coverage",
    "cumulative_score",
    "dataset_analysis",
    "error_analysis",
    "reliability",
    "right_and_wrong",
    "save",
    "spread_reliability",
    "to_base64",
    "training_count",
    "training_history",
    "worst_predictions",
]
