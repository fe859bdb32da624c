"""Learn what a face says, judge how far that can be trusted, use it.

>>> import mien
>>> model = mien.load()  # the shipped model  # doctest: +SKIP
>>> model.predict("family.jpg")  # a path, array, Pillow picture, folder, manifest  # doctest: +SKIP

The names below are imported when they are first used: `import mien` itself loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.data.manifest import Manifest
    from mien.errors import MienError, PictureError
    from mien.faces import Crop, Face
    from mien.jobs.predict import Model, load
    from mien.jobs.prediction import Prediction

__version__ = "0.1.0"
__all__ = ["Crop", "Face", "Manifest", "MienError", "Model", "PictureError", "Prediction", "load"]

#: Public name to the module that holds it.
_HOMES = {
    "Crop": "mien.faces",
    "Face": "mien.faces",
    "Manifest": "mien.data.manifest",
    "MienError": "mien.errors",
    "Model": "mien.jobs.predict",
    "PictureError": "mien.errors",
    "Prediction": "mien.jobs.prediction",
    "load": "mien.jobs.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
