"""Saving and loading networks: safetensors for numbers, JSON for the rest; nothing in a file is ever executed.

A checkpoint is a folder: `model.safetensors` and `model.json` are the network as it is used; a run's checkpoints also
hold `training.safetensors` and `training.json`, from which training goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from mien.errors import MienError, unknown
from mien.faces import Crop
from mien.files import whole, write_json, write_text
from mien.models.age_flow import AgeFlow, AgeFlowSettings
from mien.models.age_transformer import AgeTransformer, AgeTransformerSettings
from mien.models.beta_vae import BetaVae, BetaVaeSettings
from mien.models.estimator import Estimator, ModelSettings, build_estimator
from mien.models.landmarker import Landmarker, LandmarkerSettings
from mien.models.met import Met
from mien.tasks.face import TASKS, TasksSettings

#: Version of the layout of model.json.
FORMAT = 1
WEIGHTS, FACTS = "model.safetensors", "model.json"
#: What a checkpoint may hold, and where it is used.
KINDS = {
    "estimator": ("an estimator", "`mien predict`"),
    "beta_vae": ("a beta-VAE", "`mien latents` or `mien render`"),
    "age_transformer": ("an AgeTransformer", "`mien render`"),
    "age_flow": ("an age flow", "`mien render`"),
    "landmarker": ("a landmarker", "`--landmarker`"),
}


#: The networks that render, and their settings.
RENDERERS: dict[str, tuple[Any, type[BaseModel]]] = {
    "beta_vae": (BetaVae, BetaVaeSettings),
    "age_transformer": (AgeTransformer, AgeTransformerSettings),
    "age_flow": (AgeFlow, AgeFlowSettings),
}
AnyNetwork = BetaVae | AgeTransformer | AgeFlow


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors; the file appears whole."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Safetensors wants each tensor dense and in memory of its own.
    dense = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with whole(path) as beside:
        try:
            save_file(dense, beside)
        except SafetensorError as error:  # what it makes of a full disk
            raise MienError(f"{path} cannot be written: {error}") from None


def save_estimator(folder: Path, estimator: Estimator, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write `estimator` to `folder`; `weights` (its averaged ones, say) stand in for its own where given."""
    save_tensors(folder / WEIGHTS, weights if weights is not None else estimator.state_dict())
    save_facts(folder, estimator)


def save_facts(folder: Path, estimator: Estimator) -> None:
    """Write all of `estimator` but its weights: settings, crop, fitted states, card."""
    write_json(
        folder / FACTS,
        {
            "format": FORMAT,
            "kind": "estimator",
            "name": estimator.name,
            "settings": estimator.settings,
            "crop": estimator.crop.to_dict(),
            "states": estimator.states,
            "calibrated_on": estimator.calibrated_on,
            "learnt": None if estimator.learnt is None else estimator.learnt.text(),
            "card": estimator.card,
        },
    )


def inherited_terms(cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the card of a network made from others says of terms: all of theirs, nothing where none says any."""
    terms = list(dict.fromkeys(str(card["terms"]) for card in cards if card.get("terms")))
    return {"terms": "; ".join(terms)} if terms else {}


def save_landmarker(folder: Path, landmarker: Landmarker, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write `landmarker` to `folder`; `weights` stand in for its own where given."""
    save_tensors(folder / WEIGHTS, weights if weights is not None else landmarker.state_dict())
    write_json(
        folder / FACTS,
        {
            "format": FORMAT,
            "kind": "landmarker",
            "name": landmarker.name,
            "settings": {"landmarker": landmarker.settings.model_dump(mode="json")},
            "crop": landmarker.crop.to_dict(),
            "refuse": landmarker.refuse,
            "card": landmarker.card,
        },
    )


def load_landmarker(model: str | Path | None = None, device: str | torch.device = "cpu") -> Landmarker:
    """A landmarker ready for use: a run's best, a checkpoint's, or a shipped one by name (None: the default one).

    Raises:
        MienError: there is no such model, or its files are damaged or of another kind.
    """
    folder = find_checkpoint(model or LANDMARKER)
    facts = _read_facts(folder, "landmarker")
    try:
        settings = LandmarkerSettings.model_validate(facts["settings"]["landmarker"])
        landmarker = Landmarker(settings, str(facts["crop"]["template"]))
        landmarker.refuse = None if facts["refuse"] is None else float(facts["refuse"])
    except (KeyError, TypeError, ValueError) as error:
        raise MienError(f"{folder / FACTS}: not a model of this version of mien: {error}") from None
    _load_weights(landmarker, folder)
    landmarker.card = facts.get("card", {})
    landmarker.name = facts.get("name") or str(model)
    return landmarker.eval().to(device)


def save_renderer(folder: Path, network: AnyNetwork, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a renderer to `folder`; `weights` stand in for its own where given."""
    kind = next(name for name, (network_type, _) in RENDERERS.items() if isinstance(network, network_type))
    save_tensors(folder / WEIGHTS, weights if weights is not None else network.state_dict())
    write_json(
        folder / FACTS,
        {
            "format": FORMAT,
            "kind": kind,
            "name": network.name,
            "settings": {kind: network.settings.model_dump(mode="json")},
            "crop": network.crop.to_dict(),
            "ages": list(network.ages),
            "learnt": None if network.learnt is None else network.learnt.text(),
            "card": network.card,
        },
    )


def load_renderer(model: str | Path | None = None, device: str | torch.device = "cpu") -> AnyNetwork:
    """A renderer ready for use: a run's best, a checkpoint's, or a shipped one by name (None: the default one).

    Raises:
        MienError: there is no such model, or its files are damaged or of another kind.
    """
    folder = find_checkpoint(model or RENDERER)
    facts = _read_facts(folder, *RENDERERS)
    kind = facts["kind"]
    build, settings_type = RENDERERS[kind]
    try:
        settings = settings_type.model_validate(facts["settings"][kind])
        network: AnyNetwork = build(settings, Crop.from_dict(facts["crop"]))
        network.learnt = Met.read(facts["learnt"]) if facts.get("learnt") else None
        youngest, oldest = facts["ages"]
        network.ages = (float(youngest), float(oldest))
    except (KeyError, TypeError, ValueError) as error:
        raise MienError(f"{folder / FACTS}: not a model of this version of mien: {error}") from None
    _load_weights(network, folder)
    network.card = facts.get("card", {})
    network.name = facts.get("name") or str(model)
    return network.eval().to(device)


def _load_weights(network: nn.Module, folder: Path) -> None:
    try:
        network.load_state_dict(read_tensors(folder / WEIGHTS))
    except RuntimeError as error:
        raise MienError(
            f"{folder / WEIGHTS}: weights and {FACTS} do not belong together: {str(error).splitlines()[-1].strip()}"
        ) from None


def load_estimator(model: str | Path | None = None, device: str | torch.device = "cpu") -> Estimator:
    """An estimator ready for use: a run's best, a checkpoint's, or a shipped one by name (None: the default one).

    Raises:
        MienError: there is no such model, or its files are damaged or of another kind.
    """
    folder = find_checkpoint(model)
    facts = _read_facts(folder, "estimator")
    try:
        settings = ModelSettings.model_validate({**facts["settings"]["model"], "init": None})
        own = [name for name in facts["settings"]["tasks"] if name not in TASKS]
        tasks = None if own else TasksSettings.model_validate(facts["settings"]["tasks"])
        crop = Crop.from_dict(facts["crop"])
        learnt = Met.read(facts["learnt"]) if facts.get("learnt") else None
    except (KeyError, TypeError, ValueError) as error:
        raise MienError(f"{folder / FACTS}: not a model of this version of mien: {error}") from None
    if tasks is None:
        raise MienError(
            f"{folder / FACTS}: {', '.join(own)} is no task of mien's; the program that adds it is to load it "
            "(docs/extending.md)"
        )
    estimator = build_estimator(settings, tasks, crop, load=False)
    _load_weights(estimator, folder)
    estimator.states = facts.get("states", {})
    estimator.calibrated_on = facts.get("calibrated_on", {})
    estimator.learnt = learnt
    estimator.card = facts.get("card", {})
    estimator.settings = facts["settings"]
    estimator.name = facts.get("name") or str(model)
    return estimator.eval().to(device)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        MienError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise MienError(f"{path}: no such file; the checkpoint is incomplete") from None
    except SafetensorError as error:
        raise MienError(f"{path}: damaged weights ({error}); take another checkpoint") from None


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """What mien wrote down in `path`; `remedy` says what to do about a file that the disk has damaged.

    Raises:
        MienError: it is damaged.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise MienError(f"{path} is damaged ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise MienError(f"{path} is damaged (a {type(found).__name__}, no table); {remedy}")
    return found


def _read_facts(folder: Path, *wanted: str) -> dict[str, Any]:
    path = folder / FACTS
    try:
        facts = read_json(path, "take another checkpoint")
    except FileNotFoundError:
        raise MienError(
            f"{folder}: no {FACTS} in it; a model is a run, a checkpoint folder or a shipped name"
        ) from None
    if facts.get("kind") not in wanted:
        kind = str(facts.get("kind"))
        what = "holds {}, which {} takes".format(*KINDS[kind]) if kind in KINDS else f"holds {kind!r}, no model of mien"
        raise MienError(f"{path}: {what}; expected {' or '.join(KINDS[name][0] for name in wanted)}")
    if facts.get("format") != FORMAT:
        raise MienError(f"{path}: format {facts.get('format')}, this version of mien reads format {FORMAT}")
    return facts


def kind_of(model: str | Path | None, *wanted: str) -> str:
    """Which of the kinds `wanted` ("estimator", "age_transformer", ...) a run, a checkpoint or a shipped model is.

    Raises:
        MienError: there is no such model, or it is of another kind.
    """
    return str(_read_facts(find_checkpoint(model), *wanted)["kind"])


def find_checkpoint(model: str | Path | None, which: str = "best") -> Path:
    """The folder with the weights of `model`.

    Args:
        model: a run folder (its checkpoint `which` is taken), a checkpoint folder, a shipped name, None.
        which: "best" or "last", for a run.
    """
    if model is None:
        return shipped_models()[DEFAULT_MODEL]
    path = Path(model)
    if (path / FACTS).is_file():
        return path
    if (path / "checkpoints").is_dir():
        return read_pointer(path / "checkpoints", which)
    if path.exists():
        raise MienError(f"{path}: neither a run (no checkpoints/ in it) nor a checkpoint (no {FACTS} in it)")
    models = shipped_models()
    if str(model) in models:
        return models[str(model)]
    raise unknown("model", str(model), models, "shipped models; as a path it does not exist either")


#: The model that every command uses when none is named.
DEFAULT_MODEL = "face-mobile"
#: The landmarker that every command uses when none is named.
LANDMARKER = "face-landmarks"
#: The renderer that every command uses when none is named.
RENDERER = "face-ages"
#: The beta-VAE that every command uses when none is named.
CODE = "face-code"


def shipped_models() -> dict[str, Path]:
    """Name to folder of each model that comes with the package."""
    root = Path(str(resources.files("mien"))) / "weights"
    return (
        {folder.name: folder for folder in sorted(root.iterdir()) if (folder / FACTS).is_file()}
        if root.is_dir()
        else {}
    )


def read_pointer(checkpoints: Path, which: str) -> Path:
    """The checkpoint that the pointer file `best` or `last` names.

    Raises:
        MienError: nothing is saved yet, or the pointer names a folder that is gone.
    """
    pointer = checkpoints / which
    if not pointer.is_file():
        raise MienError(f"{checkpoints}: no checkpoint {which!r} yet; train with --resume, or name another")
    folder = checkpoints / (name := pointer.read_text(encoding="utf-8").strip())
    if not name:
        raise MienError(f"{pointer}: empty, so it names no checkpoint; name a checkpoint folder beside it instead")
    if not (folder / FACTS).is_file():
        raise MienError(f"{pointer}: points to {folder.name}, which is not there; name a checkpoint folder instead")
    return folder


def write_pointer(checkpoints: Path, which: str, name: str) -> None:
    """Let `best` or `last` name a finished checkpoint; a folder appears by its pointer."""
    write_text(checkpoints / which, name + "\n")
