"""`model.init` of networks that are one whole: another one's weights to start from."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mien.data.align import require_view
from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.models.age_flow import AgeFlow
from mien.models.age_transformer import AgeTransformer
from mien.models.beta_vae import BetaVae
from mien.models.checkpoint import AnyNetwork, inherited_terms
from mien.models.landmarker import Landmarker
from mien.models.met import Met, union

#: What a user calls each.
KINDS: dict[type, str] = {
    AgeFlow: "an age flow",
    AgeTransformer: "an AgeTransformer",
    BetaVae: "a beta-VAE",
    Landmarker: "a landmarker",
}


def learnt_from(training: Manifest, *before: Met | None) -> Met | None:
    """What a network learns from: its training faces, and what those that it starts from had met."""
    return union([Met.of(training.strings("sha256")) if training.has("sha256") else None, *before])


def start_from(network: AnyNetwork | Landmarker, other: object, init: str, section: str, free: Iterable[str]) -> None:
    """Take over the weights of `other`, and the terms of the data behind them.

    Args:
        init: where `other` was found, for errors; section: the recipe's part that says what the network is.
        free: settings in which the two may differ, since no weight depends on them.

    Raises:
        MienError: `other` is another kind of network, was built otherwise, or learnt from faces cut otherwise.
    """
    if not isinstance(other, AnyNetwork | Landmarker) or type(other) is not type(network):
        kind = KINDS.get(type(other), type(other).__name__)
        raise MienError(f"model.init {init}: {kind}, not {KINDS[type(network)]}")
    mine, its = (one.settings.model_dump(mode="json", exclude=set(free)) for one in (network, other))
    if differ := {name: value for name, value in its.items() if mine[name] != value}:
        # As a shell takes it: no space within a setting.
        told = {name: json.dumps(value, separators=(",", ":")) for name, value in differ.items()}
        settings = " ".join(f"{section}.{name}={value}" for name, value in told.items())
        raise MienError(f"model.init {init}: it was built otherwise; give this run {settings}")
    require_view(network.crop, other.crop, "the manifest")
    network.load_state_dict(other.state_dict())
    network.card |= inherited_terms([other.card])
