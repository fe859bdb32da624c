"""Every figure the package draws: a function from arrays and dicts to a `matplotlib.figure.Figure`."""

from mien.report.figures.age import cumulative_score, error_analysis, training_count
from mien.report.figures.classes import confusion, reliability
from mien.report.figures.compare import compare
from mien.report.figures.dataset import dataset_analysis
from mien.report.figures.pictures import contact_sheet, worst_predictions
from mien.report.figures.training import training_history
from mien.report.figures.uncertainty import coverage, interval_calibration
from mien.report.style import save, to_base64

__all__ = [
    "compare",
    "confusion",
    "contact_sheet",
    "coverage",
    "cumulative_score",
    "dataset_analysis",
    "error_analysis",
    "interval_calibration",
    "reliability",
    "save",
    "to_base64",
    "training_count",
    "training_history",
    "worst_predictions",
]
