"""An evaluation in plain words: what the figures say, and what each of them means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mien.faces import AGE_BIN_NAMES, CROSS
from mien.report.numbers import Number, number, share, size, suppressed, years
from mien.report.style import words

#: What each figure of a report is, with its formula. ŷ is the prediction, y the truth, n the number of faces.
DEFINITIONS = {
    "95 % interval, [low, high]": "Where the figure would lie with other faces of the same kind: percentile "
    "bootstrap, whole persons or sets of copies drawn together. Of few it is too short: of 8 it holds the truth 83 "
    "times in 100, of 30 it does 90 times. Figures whose intervals overlap much cannot be told apart.",
    "n": "How many faces the figure rests on. Groups of fewer than 30 are not shown: mere chance.",
    "MAE": "Mean absolute error, (1/n) Σ |ŷ − y|, in years: how far a prediction ŷ is from the true age y, on average.",
    "Median error": "Half of the faces are off by less, half by more.",
    "RMSE": "√((1/n) Σ (ŷ − y)²), in years: large errors weigh more than in the MAE.",
    "Macro MAE": "The mean of the MAEs of the eight age bins: every age counts alike, however few its faces.",
    "Bias": "(1/n) Σ (ŷ − y), in years: above 0, faces are taken for older than they are.",
    "Bias slope": "Slope of the error on the true age, years a year: below 0, the young are taken for older "
    "and the old for younger (regression to the mean).",
    "CS@5": "Cumulative score: share of faces with |ŷ − y| ≤ 5 years.",
    "Constant predictor": "Says the median age of these faces for every face. A model of any use beats it.",
    "Majority class": "Says the most frequent class for every face.",
    "Ages made equal": "Age-standardised: what the figure would be if all groups had the same ages. Groups "
    "differ in age, and errors grow with age. Only age bins in which every group has ten faces count; where these are "
    "not all, the page names them.",
    "Coverage": "Share of faces whose true age lies inside the 90 % interval given with the prediction. It "
    "should be 90 % for every group, not only overall.",
    "Width": "Mean width of those intervals in years: the narrower, the more they say.",
    "Accuracy": "Share of faces given their true class.",
    "Macro F1": "Mean over classes of 2PR/(P + R), with precision P and recall R: every class counts alike.",
    "Cohen's kappa": "(p − c) / (1 − c): accuracy p above the agreement c that the two columns' frequencies give by "
    "chance; 1 is perfect, 0 is chance.",
    "Krippendorff's alpha": "1 − observed / expected disagreement, nominal, labels and predictions as two raters.",
    "AUROC": "Chance that a face of the class gets a higher probability of it than a face of another: one class "
    "against the rest, mean over the classes that occur; 0.5 is chance.",
    "AUPR": "Average precision Σ (Rₖ − Rₖ₋₁) Pₖ over thresholds, likewise; chance is the share of the class.",
    "ECE": "Expected calibration error: mean distance of the probability given from how often it is right, in 15 "
    "bins. Chance alone makes it larger, the more the fewer the faces; its interval allows for that.",
}

#: Those that speak of age alone.
OF_AGE = (
    *("MAE", "Median error", "RMSE", "Macro MAE", "Bias", "Bias slope", "CS@5", "Constant predictor"),
    *("Ages made equal", "Coverage", "Width"),
)

LIMITS = (
    "Age, gender and race are the labels of this data set, given by people or by a file's name: an error may "
    "be the label's. A face shows apparent age and appearance, not who somebody is.",
    "Figures hold for faces like these: other cameras, crops, ages or countries give others.",
    "Differences between groups mix the model, the labels and the pictures of each group. They say where to "
    "look, not why.",
    "Not for decisions about a person that have legal or similar weight.",
)


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """The evaluation's main findings, a sentence or two each; `**` marks the figures."""
    age = metrics.get("age") or {}
    found = _age(age) if number(age.get("mae")).known else []
    for name, part in metrics.items():
        if not isinstance(part, Mapping) or not number(part.get("accuracy")).known:
            continue
        line = f"{name.capitalize()} is right for **{share(part['accuracy'])}** of faces"
        majority = number((part.get("majority") or {}).get("accuracy"))
        if majority.known:
            line += f"; always saying the most frequent one would be right for {share(majority.value)}"
        found.append(f"{line}.")
    return found


def _age(age: Mapping[str, Any]) -> list[str]:
    mae, constant = number(age["mae"]), age.get("constant") or {}
    line = f"Age is off by **{years(mae)} years** on average (n {mae.n:,})"
    if number(constant.get("mae")).known:
        at = f", {constant['years']:.0f}," if constant.get("years") is not None else ""
        line += f"; always answering the median age{at} would be off by {years(number(constant['mae']).value)}"
    line += "."
    if number(age.get("cs5")).known:
        line += f" {share(number(age['cs5']).value)} of faces are within five years."
    found = [line]
    bins = known_groups((age.get("groups") or {}).get("age_bin"), "mae")
    if len(bins) > 1:
        order = sorted(bins, key=lambda name: bins[name].value)
        closest, furthest = (f"{name} ({years(bins[name])})" for name in (order[0], order[-1]))
        found.append(f"By age it is closest for {closest} and furthest off for {furthest}.")
    found += [_gap(key, gap) for key, gap in (age.get("gaps") or {}).items() if CROSS not in key]
    if number(age.get("coverage90")).known:
        found.append(_intervals(age))
    return found


def _intervals(age: Mapping[str, Any]) -> str:
    covered, width = share(age["coverage90"]), years(age.get("width90"), 1)
    line = f"The 90 % intervals hold the true age for **{covered}** and are {width} years wide on average."
    failing = age.get("undercovered")
    if failing:
        line += f" They hold it significantly less often than 85 % for {', '.join(map(group_name, failing))}."
    elif any("undercovered" in group for table in (age.get("groups") or {}).values() for group in table.values()):
        line += " No group of 100 or more faces lies significantly under 85 %."
    return line


def _gap(key: str, gap: Mapping[str, Any]) -> str:
    least, most = gap.get("between") or ("", "")
    raw, adjusted = number(gap.get("raw")), number(gap.get("age_standardised"))
    line = f"The largest gap by {words(key)} is {years(raw)} years, {most} against {least}{_chance(raw)}"
    if adjusted.known:
        other = list(gap.get("between_standardised") or (least, most))
        names = "" if other == [least, most] else f", {other[1]} against {other[0]}"
        line += f"; with ages made equal{only_ages(gap)} {years(adjusted)}{names}{_chance(adjusted)}"
    return f"{line}."


def only_ages(gap: Mapping[str, Any]) -> str:
    """The ages that a gap with ages made equal rests on, ` (20-39, 70+ only)`; nothing where these are all."""
    bins = gap.get("bins") or AGE_BIN_NAMES
    if len(bins) == len(AGE_BIN_NAMES):
        return ""
    runs: list[list[str]] = [[]]
    for name in AGE_BIN_NAMES:
        if name in bins:
            runs[-1].append(name)
        elif runs[-1]:
            runs.append([])
    return f" ({', '.join(_from_to(run[0], run[-1]) for run in runs if run)} only)"


def _from_to(first: str, last: str) -> str:
    """Neighbouring age bins as one: `20-29` to `30-39` is `20-39`, `60-69` to `70+` is `60+`."""
    low = first.removesuffix("+").split("-")[0]
    return f"{low}+" if last.endswith("+") else f"{low}-{last.split('-')[1]}"


def _chance(gap: Number) -> str:
    return " (may be chance)" if gap.has_interval and gap.low <= 0 <= gap.high else ""


def known_groups(groups: Mapping[str, Any] | None, key: str) -> dict[str, Number]:
    """The figure `key` of the groups that have it and are not too small."""
    return {
        name: number(group.get(key))
        for name, group in (groups or {}).items()
        if not suppressed(group) and size(group) and number(group.get(key)).known
    }


def group_name(name: str) -> str:
    """`age_bin: 0-9` as people say it: `age 0-9`; `gender x age_bin: Male x 0-9`, which tells itself: `Male × 0-9`."""
    key, _, group = name.rpartition(": ")
    return words(group) if CROSS in key else f"{words(key)} {group}".strip()
