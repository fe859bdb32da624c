"""The table of sources: where names become classes."""

from __future__ import annotations

from mien.data.sources.affect import Affect
from mien.data.sources.base import Made, Rejected, Source
from mien.data.sources.caf import Caf
from mien.data.sources.drawn import DrawnSource
from mien.data.sources.fairface import FairFace
from mien.data.sources.ferplus import FERPlus
from mien.data.sources.ffhq_aging import FFHQAging
from mien.data.sources.fgnet import FGNet
from mien.data.sources.folder import FolderSource
from mien.data.sources.imdb_wiki import ImdbWiki
from mien.data.sources.morph2 import Morph2
from mien.data.sources.utkface import UTKFace

#: To add a data set: one file beside this one, and its class here.
SOURCES: dict[str, type[Source]] = {
    source.name: source
    for source in (
        UTKFace,
        FairFace,
        FGNet,
        Morph2,
        ImdbWiki,
        FFHQAging,
        Caf,
        Affect,
        FERPlus,
        FolderSource,
        DrawnSource,
    )
}

__all__ = ["SOURCES", "Made", "Rejected", "Source"]
