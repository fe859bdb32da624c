"""Guards against judging with the labels, or the judges, that made the labels."""

from __future__ import annotations

from mien.data.manifest import Manifest
from mien.errors import MienError
from mien.experts.columns import SOURCE, experts_of
from mien.models.estimator import Estimator, weights_hash


def guard(judge: Estimator, manifest: Manifest) -> None:
    """Pass when `judge` may tell how well a model does that learnt from `manifest`.

    Raises:
        MienError: `judge` is one of the experts that relabelled it: the model learnt to please it.
    """
    mine = weights_hash(judge)
    for name, digest in experts_of(manifest).items():
        if digest == mine:
            raise MienError(
                f"{judge.name or 'the judge'} is the expert {name} that relabelled {manifest.path or 'the manifest'}: "
                "a model that learnt from it looks better to it than it is; take a judge that was left out"
            )


def guard_labels(manifest: Manifest) -> None:
    """Pass when the ages of `manifest` are people's, so that a model may be judged on them.

    Raises:
        MienError: some are those of experts; the message says of how many faces and of which experts.
    """
    taken = manifest.strings("age_from") == SOURCE
    if taken.any():
        names = ", ".join(experts_of(manifest.where(taken))) or "experts"
        raise MienError(
            f"the ages of {int(taken.sum()):,} of {len(manifest):,} faces are those of {names}, not given ones: judged "
            "on them, a model that learnt from them looks better than it is; judge on given ages, or say "
            "--allow-relabelled"
        )
