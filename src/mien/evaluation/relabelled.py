"""Guards against judging with the labels, or the judges, that made the labels."""

from __future__ import annotations

from collections.abc import Collection

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.experts.columns import SOURCE, experts_of

#: How a command is told to judge in a circle all the same.
ALLOW = "--allow-relabelled"


def guard(judge: str, hashes: Collection[str], manifest: Manifest) -> None:
    """Pass when a judge may tell how well a model does that learnt from `manifest`.

    Args:
        judge: its name.
        hashes: of the weights of all networks that it asks, as `ExpertSettings.hash` gives them.

    Raises:
        MienError: one of them is an expert that relabelled it: the model learnt to please it.
    """
    if not (manifest.strings("age_from") == SOURCE).any():
        return
    for name, digest in experts_of(manifest).items():
        if digest in hashes:
            raise MienError(
                f"{judge} asks the expert {name} that relabelled {manifest.path or 'the manifest'}: a model that "
                f"learnt from it looks better to it than it is; take a judge that was left out, or say {ALLOW}"
            )


def guard_labels(manifest: Manifest, allow: str = ALLOW) -> None:
    """Pass when the ages of `manifest` are people's, so that a model may be judged on them; `allow` is how to say that
    it may be all the same.

    Raises:
        MienError: some are those of experts; the message says of how many faces and of which experts.
    """
    taken = manifest.strings("age_from") == SOURCE
    if taken.any():
        names = ", ".join(experts_of(manifest.where(taken))) or "experts"
        raise MienError(
            f"the ages of {int(taken.sum()):,} of {len(manifest):,} faces are those of {names}, not given ones: judged "
            f"on them, a model that learnt from them looks better than it is; judge on given ages, or say {allow}"
        )
