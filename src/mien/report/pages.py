"""The pages of the package."""

from mien.report.evaluation import evaluation_page
from mien.report.inspection import inspection_page

__all__ = ["evaluation_page", "inspection_page"]
