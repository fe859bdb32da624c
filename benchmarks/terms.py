"""What each term of the AgeTransformer's objective brings: each off once, on an equal and small budget.

    python benchmarks/terms.py FACES [key=value ...] --guide GUIDE -o FOLDER [--judge MODEL] [--identity WEIGHTS]
        [--faces-judged 300] [--only TERM ...]

Every run starts from the same seed and learns as long from the same faces; `key=value` change the recipe of all of
them, and may switch on what it leaves off. All are audited side by side, on the same faces, by networks that guided
none: differences are base less the run without the term, paired, with 95 % bootstrap intervals. Drawn faces are held
against the truth too. A finished run is not done again; FOLDER gets `terms.md` and the audit's page.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mien.data.manifest import Manifest
from mien.evaluation.ageing.audit import audit_ageing
from mien.evaluation.ageing.judges import IdentityJudge, Judges, load_judge
from mien.evaluation.ageing.shown import open_shown
from mien.files import write_text
from mien.report.ageing import COLUMNS
from mien.training.recipe import load_recipe
from mien.training.run import train_run

BASE = "all terms"
#: Weights of terms in `age_transformer_objective`; a term of weight 0 in the base has nothing to be left out.
TERMS = (
    "adversarial",
    "age_class",
    "r1",
    "mismatch",
    "own",
    "cycle",
    "identity",
    "age",
    "ordering",
    "traits",
    "perceptual",
    "mask",
    "smooth",
    "source",
    "direction",
    "jitter",
)
AGES = [float(age) for age in range(5, 76, 10)]
#: What is told of each run, and of these what is compared with the base.
TOLD = ("mae", "spearman", "truth", "cosine", "own_l1", "gender_kept", "outside")
COMPARED = ("mae", "truth", "cosine", "outside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--guide", required=True, help="the run of an estimator that guides ages")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--recipe", default="drawn-age-transformer")
    parser.add_argument("--judge", help="an estimator of ages that guided nothing")
    parser.add_argument("--identity", help="MobileFaceNet's weights, or an estimator")
    parser.add_argument("--only", nargs="*", default=TERMS, choices=TERMS, help="terms to leave out; all by default")
    parser.add_argument("--faces-judged", type=int, default=300)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    given = parser.parse_intermixed_args()

    settings = [f"data.faces={given.faces}", f"age_transformer_objective.guide_model={given.guide}", *given.settings]
    base = load_recipe(given.recipe, settings).age_transformer_objective
    names = {BASE: given.out / "base"}
    names |= {f"no {term}": given.out / f"no-{term}" for term in given.only if getattr(base, term)}
    for name, run in names.items():
        left_out = [] if name == BASE else [f"age_transformer_objective.{name.removeprefix('no ')}=0"]
        if not (run / "metrics.val.json").is_file():
            print(f"--- {name}", flush=True)
            recipe = load_recipe(given.recipe, [*settings, *left_out, f"name={run.name}"])
            train_run(recipe, run, resume=(run / "config_used.json").is_file())
    judges = Judges(load_judge(given.judge), None if given.identity is None else IdentityJudge(given.identity), None)
    metrics = audit_ageing(
        [open_shown(str(run)) for run in names.values()],
        judges,
        Manifest.open(given.faces),
        "val",
        given.out / "audit",
        AGES,
        count=given.faces_judged,
    )
    text = table(metrics, list(names))
    write_text(given.out / "terms.md", text)
    print(text)


def table(metrics: dict[str, Any], names: list[str]) -> str:
    """The figures of every run, then base less each of them, as Markdown."""
    found = dict(zip(names, metrics["renderers"].values(), strict=False))  # runs first, in their order
    found |= {name: one for name, one in metrics["renderers"].items() if one["kind"] == "trivial"}
    told = [figure for figure in TOLD if figure in found[BASE]["summary"]]
    lines = [f"| {' | '.join(['', *(COLUMNS[figure][0] for figure in told)])} |", "|---" * (len(told) + 1) + "|"]
    for name, one in found.items():
        lines.append(f"| {name} | {' | '.join(COLUMNS[figure][1](one['summary'].get(figure)) for figure in told)} |")
    told = [figure for figure in COMPARED if figure in told]
    heading = ["all terms less this", *(COLUMNS[figure][0] for figure in told)]
    lines += ["", f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for name in names[1:]:
        less = found[name]["first_less_this"]
        lines.append(f"| {name} | {' | '.join(COLUMNS[figure][1](less.get(figure)) for figure in told)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
