"""The page of a sweep: all its runs in one table, and for beta-VAEs what they trade."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mien.report.figures.sweep import trade_off
from mien.report.html import Page
from mien.report.numbers import DASH, count, number, years

#: Figures of the summary, as far as the runs have them; the CSV has all.
LEADING = (
    *("age/mae", "age/macro_mae", "gender/accuracy", "race/accuracy", "expression/accuracy", "valence/ccc"),
    *("arousal/ccc", "reconstruction/mse", "rate/id", "code/active", "probe/ratio"),
)
#: Where none of these is there, so many others.
OTHERS = 8
#: Keys whose values a trade-off is drawn along.
ALONG = ("beta", "capacity")
#: A probe of z_id that gets this far towards the constant's MAE reads little of the age.
APART = 0.8
STATUS = {
    "status": "done: trained now. kept: trained before with these settings, left alone. changed: a run of other "
    "settings stands in its folder and is left alone. failed: with its error; the same command tries it again.",
}
#: Of estimators' figures, by the beginning of their names; all are of the faces of `val`.
ANSWERS = {
    "age/mae": "Mean absolute error in years, over exact ages.",
    "age/macro_mae": "The mean of it over eight age bins, 0-9, 10-19, ... 70 and older, so that few old faces count.",
    "gender/accuracy": "Share of faces for which the most probable word is the label.",
    "race/accuracy": "As of gender.",
    "expression/accuracy": "As of gender.",
    "valence/ccc": "Lin's concordance correlation coefficient: 1 agrees, 0 tells nothing.",
    "arousal/ccc": "As of valence.",
}
CODES = {
    "rate": "KL divergence of the posterior from the prior given the age, in nats, summed over latents, mean over "
    "faces.",
    "MSE": "Of pixels in [0, 1]: from the code's mean; sampled: from a code drawn about it, which the rate pays for.",
    "MIG of the age": "Gap of mutual information (Chen et al. 2018), beside the interval of what chance gives. z_age "
    "is taught the age: this is supervision, not discovery. Its range is over seeds.",
    "age in z_id": "MAE of the strongest of three probes (linear, boosted, MLP) over that of the constant median: 1 "
    "reads nothing.",
}
INTERVAL = {
    "95 % interval, [low, high]": "Percentile bootstrap, whole persons or sets of copies drawn together.",
}


def sweep_page(found: Mapping[str, Any]) -> Page:
    """The summary of `sweep.json`."""
    runs = found["runs"]
    keys = list(dict.fromkeys(key for row in runs for key in row["values"]))
    ends = {status: sum(row["status"] == status for row in runs) for status in ("done", "kept", "changed", "failed")}
    told = ", ".join(f"{number_} {status}" for status, number_ in ends.items() if number_)
    page = Page(f"A sweep of {found['recipe']}", f"{len(runs)} runs over {', '.join(keys)}: {told}")
    coded = [row for row in runs if row["code"]]
    if coded:
        page.heading("What is traded")
        page.text(f"**{choice(coded)}**")
        page.figure(trade_off(lines_of(coded)), "Each point a run, judged on its faces of `val`; bars: 95 % intervals.")
        page.table(*_trades(coded, keys))
    page.heading("Runs")
    names = leading([row["figures"] for row in runs])
    rows = [
        [row["run"], row["status"], *(years(row["figures"].get(name), 4) for name in names), _minutes(row["seconds"])]
        for row in runs
    ]
    page.table(["run", "status", *names, "minutes"], rows, text_columns=(0, 1))
    page.note("Every figure, with its interval where the run tells one, is in `sweep.csv`.")
    errors = {row["run"]: row["error"] for row in runs if row["error"]}
    if errors:
        page.heading("What went wrong")
        page.facts(errors)
    page.heading("Definitions")
    answers = {name: told for name, told in ANSWERS.items() if name in names}
    page.facts(STATUS | answers | (CODES if coded else {}) | INTERVAL)
    return page


def leading(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures that a summary shows."""
    names = dict.fromkeys(name for one in figures for name in one)
    return [name for name in LEADING if name in names] or list(names)[:OTHERS]


def lines_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """Trade-offs by the line that joins them: runs alike but in beta or capacity, by which a point is named."""
    lines: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for row in runs:
        along = {key: value for key, value in row["values"].items() if key.rpartition(".")[2] in ALONG}
        rest = {key: value for key, value in row["values"].items() if key not in along}
        lines.setdefault(_words(rest) or "runs", []).append((_words(along), row["code"]))
    return lines


def choice(runs: Sequence[Mapping[str, Any]]) -> str:
    """A sentence on which run to take, and by what rule."""
    known = [row for row in runs if number(row["code"].get("mse")).known and number(row["code"].get("probe")).known]
    if not known:
        return (
            "No run was judged on both its pictures and what its z_id still knows of the age: none is to be preferred."
        )
    apart = [row for row in known if row["code"]["probe"]["value"] >= APART]
    best = min(apart, key=lambda row: float(row["code"]["mse"]["value"])) if apart else None
    best = best or max(known, key=lambda row: float(row["code"]["probe"]["value"]))
    code = best["code"]
    figures = (
        f"MSE {years(code['mse'], 5)}, {years(code['rate'], 1)} nats, probe {years(code['probe'])} of the constant"
    )
    hides = f"hides the age (a probe's MAE is {APART} of the constant's or more)"
    if apart:
        return f"Take {best['run']}, the best pictures of the runs whose z_id {hides}: {figures}."
    return f"There is no run whose z_id {hides}; {best['run']} comes nearest: {figures}. Raise hsic or the adversary."


def _trades(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    headers = [
        *keys,
        "rate, nats",
        "MSE",
        "MSE, sampled",
        "MIG of the age",
        "its null",
        "age in z_id",
        "age MAE",
        "faces",
    ]
    rows: list[list[Any]] = []
    for row in runs:
        code = row["code"]
        rows.append(
            [
                *(_value(row["values"].get(key)) for key in keys),
                years(code.get("rate"), 1),
                years(code.get("mse"), 5),
                years(code.get("mse_sampled"), 5),
                years(code.get("mig"), 3),
                "{:.3f} to {:.3f}".format(*code["mig"]["null"]) if "mig" in code else DASH,
                years(code.get("probe")),
                years(code.get("age")),
                count(code["n"]),
            ]
        )
    return headers, rows


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _minutes(seconds: float | None) -> str:
    return DASH if seconds is None else f"{seconds / 60:.1f}"
