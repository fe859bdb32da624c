"""Who is it? Embeddings of faces whose cosine tells, by MobileFaceNet with its last two layers."""

from __future__ import annotations

from pathlib import Path

from mien.errors import MienError
from mien.models.backbone import Backbone, quickened, read_weights
from mien.models.mobilefacenet import MobileFaceNet

#: The layer whose outputs are the embedding.
LAST = "conv3.weight"


def load_identity(weights: str | Path) -> Backbone:
    """MobileFaceNet from a file of weights, frozen: uint8 or float [0, 1] faces (B, 3, H, W) to embeddings (B, E).

    Raises:
        MienError: there is no such file, or it holds another network.
    """
    if not Path(weights).is_file():
        raise MienError(f"{weights}: no such file; name one with weights of MobileFaceNet (`mien models`)")
    state = read_weights(Path(weights))
    if LAST not in state:
        raise MienError(f"{weights}: no {LAST} in it; expected MobileFaceNet with its embedding")
    net = MobileFaceNet(embedding=len(state[LAST]))
    try:
        net.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise MienError(f"{weights}: these are not weights of MobileFaceNet: {reason}") from None
    backbone = Backbone(net, net.embedding, net.input_size, net.mean, net.std)
    return quickened(backbone.eval().requires_grad_(False))
