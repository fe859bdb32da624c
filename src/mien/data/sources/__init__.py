"""The table of sources: where names become classes."""

from __future__ import annotations

from mien.data.sources.base import Made, Rejected, Source
from mien.data.sources.drawn import DrawnSource
from mien.data.sources.fairface import FairFace
from mien.data.sources.fgnet import FGNet
from mien.data.sources.folder import FolderSource
from mien.data.sources.utkface import UTKFace

#: To add a data set: one file beside this one, and its class here.
SOURCES: dict[str, type[Source]] = {
    source.name: source for source in (UTKFace, FairFace, FGNet, FolderSource, DrawnSource)
}

__all__ = ["SOURCES", "Made", "Rejected", "Source"]
