"""MiVOLO from a folder as the hub gives it: published names and sizes, crossed attention, views, bodies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.volo import VOLO
from torch import nn

from mien.errors import MienError
from mien.experts.mivolo import MiVolo, letterbox
from mien.experts.pixels import view
from mien.models.mivolo import Crossed, build_mivolo


@timm.models.register_model
def volo_small(pretrained: bool = False, **kwargs: object) -> VOLO:
    """A VOLO that a test can afford; its name is what a configuration asks for."""
    kwargs = {key: value for key, value in kwargs.items() if not key.startswith(("pretrained", "cache"))}
    return VOLO((1, 1, 1, 1), embed_dims=(8, 16, 16, 16), num_heads=(1, 2, 2, 2), stem_hidden_dim=4, **kwargs)


CONFIG = {"model_name": "mivolo_small", "min_age": 0, "max_age": 122, "avg_age": 61.0, "with_persons_model": True}


def folder(path: Path, bodies: bool = True, outputs: int = 3, **config: object) -> Path:
    """Random weights and their configuration, named as published: `mivolo.model.` before every layer."""
    torch.manual_seed(0)
    network = build_mivolo("mivolo_small", 32, outputs, bodies)
    nn.init.normal_(network.head.weight, std=0.3)  # else every face is of the middle age
    path.mkdir(exist_ok=True)
    save_file({f"mivolo.model.{key}": value for key, value in network.state_dict().items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return path


def faces(count: int, side: int = 40) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (3, side + n, side), dtype=np.uint8) for n in range(count)]


def test_it_has_the_published_number_of_parameters() -> None:
    """28,761,822 numbers, buffers included, is what the hub says of iitolstykh/mivolo_v2's safetensors."""
    with torch.device("meta"):
        state = build_mivolo("mivolo_d1_384", 384, 3, bodies=True).state_dict()
    assert sum(value.numel() for value in state.values() if value.is_floating_point()) == 28_761_822


def test_two_maps_ask_one_another() -> None:
    """Against attention written out place by place, with relative positions."""
    torch.manual_seed(1)
    crossed = Crossed(8, 3).double().eval()
    face, body = torch.randn(2, 1, 8, 3, 3, dtype=torch.float64)
    parts = [conv(x)[0].flatten(1).T.split(8, dim=1) for conv, x in ((crossed.qkv_f, face), (crossed.qkv_p, body))]
    found = torch.zeros(16, 3, 3, dtype=torch.float64)
    for half, (mine, other) in enumerate((parts, parts[::-1])):
        for y in range(3):
            for x in range(3):
                asked = mine[0][3 * y + x]
                logits = torch.stack(
                    [
                        asked @ other[1][3 * v + u] / 8**0.5
                        + asked @ crossed.pos_embed.height_rel[v - y + 2]
                        + asked @ crossed.pos_embed.width_rel[u - x + 2]
                        for v in range(3)
                        for u in range(3)
                    ]
                )
                found[8 * half : 8 * half + 8, y, x] = logits.softmax(0) @ other[2]
    torch.testing.assert_close(crossed(face, body), crossed.mlp(crossed.norm(found[None])))


def test_ages_are_means_over_views_and_confidence_their_spread(tmp_path: Path) -> None:
    expert = MiVolo(folder(tmp_path / "mivolo"))
    said = expert.ask(faces(3))
    each = [
        MiVolo(tmp_path / "mivolo", views=1).ask([view(one, *how) for one in faces(3)]).ages for how in expert.views
    ]
    assert said.ages == pytest.approx(np.mean(each, axis=0), abs=1e-3)
    assert said.confidences == pytest.approx(-np.std(each, axis=0), abs=1e-3)
    assert np.ptp(said.ages) > 0.01
    assert np.isnan(said.variances).all()
    assert np.isnan(MiVolo(tmp_path / "mivolo", views=1).ask(faces(1)).confidences).all()


def test_the_age_is_the_last_output_on_the_scale_of_its_configuration(tmp_path: Path) -> None:
    place = folder(tmp_path / "m", min_age=1, max_age=95, avg_age=48.0)
    state = load_file(place / "model.safetensors")
    for key in ("head.weight", "aux_head.weight", "aux_head.bias"):
        state[f"mivolo.model.{key}"].zero_()
    state["mivolo.model.head.bias"] = torch.tensor([7.0, -7.0, 0.25])
    save_file(state, place / "model.safetensors")
    assert MiVolo(place).ask(faces(2)).ages == pytest.approx([0.25 * 94 + 48] * 2, rel=1e-6)


def test_a_body_tells_and_none_is_black(tmp_path: Path) -> None:
    expert = MiVolo(folder(tmp_path / "m"), views=1)
    alone = expert.ask(faces(2)).ages
    black = np.zeros((3, 50, 20), dtype=np.uint8)
    assert expert.ask(faces(2), [None, black]).ages == pytest.approx(alone)
    body = np.full((3, 50, 20), 200, dtype=np.uint8)
    assert np.abs(expert.ask(faces(2), [body, None]).ages - alone)[0] > 1e-4


def test_faces_alone_and_ages_alone(tmp_path: Path) -> None:
    expert = MiVolo(folder(tmp_path / "m", bodies=False, outputs=1))
    assert np.isfinite(expert.ask(faces(17)).ages).all()  # more than one pass takes
    with pytest.raises(MienError, match="looks at faces alone"):
        expert.ask(faces(1), [None])


def test_a_letterbox_keeps_the_shape() -> None:
    boxed = letterbox(np.full((3, 20, 10), 255, dtype=np.uint8), 8)
    assert (boxed[:, :, 2:6] == 255).all()
    assert boxed[:, :, :2].max() == boxed[:, :, 6:].max() == 0


def test_its_card_tells_its_terms(tmp_path: Path) -> None:
    place = folder(tmp_path / "m")
    assert MiVolo(place).terms == "unknown: no card names a licence"
    (place / "README.md").write_text("---\nlicense: apache-2.0\ntags: [age]\n---\n# MiVOLO\n")
    assert MiVolo(place).terms == "apache-2.0, by its card"
    assert MiVolo(place, terms="research only").terms == "research only"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "config.json").unlink(), r"config.json: no such file; name the whole folder"),
        (lambda place: (place / "config.json").write_text("[1]"), "expected a table"),
        (lambda place: (place / "config.json").write_text('{"model_name": "x"}'), "min_age, max_age, avg_age missing"),
        (lambda place: (place / "config.json").write_text(json.dumps({**CONFIG, "model_name": "mivit"})), "unknown"),
        (lambda place: (place / "model.safetensors").write_bytes(b"no weights"), "cannot be read as weights"),
        (lambda place: save_file({"head.bias": torch.zeros(3)}, place / "model.safetensors"), "no weights of a MiVOLO"),
        (lambda place: folder(place, model_name="mivolo_d1_224"), r"not the weights of mivolo_d1_224: .* do not fit"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, message: str) -> None:
    place = folder(tmp_path / "m")
    damage(place)  # type: ignore[operator]
    with pytest.raises(MienError, match=message):
        MiVolo(place)
