"""What a run writes down of itself when it begins, and what must be the same when it goes on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.files import file_hash, write_json
from mien.models.checkpoint import load_estimator, read_json
from mien.models.estimator import weights_hash
from mien.training.recipe import Recipe

CONFIG = "config_used.json"
#: Settings that may differ between a run and its resumption, since they change no number.
FREE = ("data.root", "data.workers", "training.keep", "training.save_every")


def open_faces(recipe: Recipe) -> Manifest:
    """The manifest of a recipe; several are joined, their crops must agree."""
    faces = recipe.data.faces
    if not faces:
        raise MienError("data.faces is not set: name a manifest, such as data.faces=utk (`mien prepare` makes one)")
    return Manifest.concat([Manifest.open(path, recipe.data.root) for path in _places(recipe).values()])


def _places(recipe: Recipe) -> dict[str, str]:
    """The manifests that a recipe names, and where they are: there, else where the run that it is of found them."""
    faces = recipe.data.faces or []
    known = (recipe.record or {}).get("places")
    known = known if isinstance(known, dict) else {}
    places = {}
    for name in [faces] if isinstance(faces, str) else faces:
        before = known.get(name)
        places[name] = before if before and Path(before).exists() and not Path(name).exists() else name
    return places


def claim(folder: Path, recipe: Recipe, manifest: Manifest) -> None:
    """Make the folder a run of this recipe."""
    settings = recipe.model_dump(mode="json", exclude={"record"})
    settings["record"] = {
        "mien": version("mien"),
        "packages": {name: version(name) for name in ("torch", "timm", "accelerate", "numpy", "pillow", "pyarrow")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "git": _commit(),
        "manifest": manifest.hash,
        "beside": read_beside(recipe, manifest),
        "faces": len(manifest),
        "places": {name: str(Path(place).resolve()) for name, place in _places(recipe).items()},
    }
    write_json(folder / CONFIG, settings)


def read_beside(recipe: Recipe, manifest: Manifest) -> dict[str, str]:
    """sha256 of all that a run goes on reading beside the manifest's pictures and labels: columns that weigh faces,
    captions, the networks that guide. What is not there is left out; whoever needs it says so."""
    columns = ["moe_weight"] if recipe.sampling.weights == "reliability" else []
    columns += ["age_std"] if recipe.age_transformer else []
    found = {
        name: hashlib.sha256(manifest.numbers(name).tobytes()).hexdigest() for name in columns if manifest.has(name)
    }
    files = {"captions": recipe.captions}
    for options in (recipe.age_transformer_objective, recipe.beta_vae_objective):
        told = options.model_dump()
        files |= {key: told.get(key) for key in ("identity_weights", "perceptual_weights") if told.get(key)}
        for key in ("guide_model", "identity_model"):
            named = told.get(key) or []
            for model in [named] if isinstance(named, str) else named:
                with suppress(MienError):
                    found[f"{key} {model}"] = weights_hash(load_estimator(model))
    return found | {key: file_hash(path) for key, path in files.items() if path and Path(path).is_file()}


def changed_settings(folder: Path, recipe: Recipe, manifest: Manifest) -> list[str]:
    """Keys in which `recipe`, or the faces it learns from, differ from the run in `folder`; those that change no
    number aside."""
    before = read_json(folder / CONFIG, "put it back, or start another run with -o")
    was = before.pop("record", {})
    with suppress(ValidationError):
        # Settings that are new since, at their defaults, do not make it another run.
        before = Recipe.model_validate(before).model_dump(mode="json", exclude={"record"})
    settings = recipe.model_dump(mode="json", exclude={"record"})
    if recipe.training.precision == "auto":  # a run writes what this came to
        settings["training"]["precision"] = before["training"]["precision"]
    changed = [key for key in _differences(before, settings) if key not in FREE]
    if "beside" in was:  # runs of before did not tell
        now = read_beside(recipe, manifest)
        changed += [
            f"the content of {key}" for key in sorted({*was["beside"], *now}) if was["beside"].get(key) != now.get(key)
        ]
    return [*changed, "the manifest's content"] if was.get("manifest") != manifest.hash else changed


def _differences(before: Any, now: Any, place: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(set(before) | set(now))
        return [
            item
            for key in keys
            for item in _differences(before.get(key), now.get(key), f"{place}.{key}" if place else key)
        ]
    return [] if before == now else [place]


def _commit() -> str | None:
    """The commit of the checkout that mien runs from; None when it is installed."""
    try:
        here = Path(__file__).resolve().parent
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
