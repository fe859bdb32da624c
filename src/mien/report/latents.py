"""The page of a representation: what is rebuilt, what is where in the code, what a shift in age changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from mien.report.html import Card, Page
from mien.report.numbers import DASH, count, number, share, years
from mien.report.style import words

DEFINITIONS = {
    "MSE, L1": "Mean squared and mean absolute difference of pixels in [0, 1], over all pixels and colours.",
    "PSNR, SSIM": "Peak signal to noise ratio in dB; structural similarity (Wang et al. 2004), Gaussian window.",
    "Perceptual": "Squared difference of unit-length features of MobileFaceNet at four depths (Zhang et al. 2018).",
    "Rate": "KL divergence of the posterior from the prior, in nats, summed over latents, mean over faces.",
    "MIG": "Mutual information of a factor with its best latent less that with the second best, over the factor's "
    "entropy (Chen et al. 2018). Null: the 95 % interval for the same values dealt to other faces.",
    "SAP": "How much better the best single latent tells the factor than the second best (Kumar et al. 2018).",
    "DCI": "Disentanglement: each latent speaks of one factor; completeness: each factor is in one latent; "
    "informativeness: how well boosted trees tell it, accuracy or R² (Eastwood & Williams 2018).",
    "Spread over seeds": "MIG, SAP and DCI stand with the least and the largest value over seeds, each with another "
    "four fifths of the groups.",
    "Probe": "A model that reads age from a code, judged on groups that it did not learn from. The strongest counts.",
    "Constant": "The median age of the faces learnt from: what is right without looking.",
    "95 % interval, [low, high]": "Percentile bootstrap, whole persons or sets of copies drawn together.",
}
LABELS = {"mse": "MSE", "l1": "L1", "psnr": "PSNR, dB", "ssim": "SSIM", "perceptual": "perceptual"}
DIGITS = {"mse": 5, "l1": 4, "psnr": 2, "ssim": 4, "perceptual": 4}
SHIFTS = {
    "slope": "judged years a year",
    "moved_older": "share of +30 reached",
    "moved_younger": "share of −30 reached",
    "direction": "right direction",
    "cosine": "identity cosine",
    "gender_kept": "gender kept",
    "race_kept": "race kept",
    "expression_kept": "expression kept",
}
CAPTIONS = {
    "reconstructions": "Faces and what each code of them gives back.",
    "ages": "Faces at other ages; left the true age, where it is known.",
    "traversals": "One face, the latents of the person that vary most moved to −2 to 2 standard deviations.",
    "interpolations": "On the straight way from one face's code to another's.",
}


def latents_page(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> Page:
    """The report of `evaluation.latents`: its figures, as tables, and pictures by name."""
    about = metrics["about"]
    page = Page(f"The code of {about['model']}", "What it keeps of a face, what of it is the age, what a shift changes")
    page.heading("In short")
    for remark in (metrics.get("caution"), metrics["collapse"]):
        if remark:
            page.text(f"**{remark}**")
    page.cards(_cards(metrics))
    page.heading("What was judged")
    page.facts(
        {
            "model": about["model"],
            "parameters": about["parameters"],
            "latents": f"{metrics['code']['latents']} of the person ({metrics['code']['active']} in use), "
            f"{about['settings']['age_dims']} of the age, supervised",
            "split": about["split"],
            "faces": about["faces"],
            "groups": about["groups"],
            "rivals and vectors learnt from": about["learnt_from"],
            "identity network": about["identity"] or DASH,
        }
    )
    page.points([f"**{name}**: {text}" for name, text in about["coders"].items()])
    page.heading("Pictures")
    for name, figure in figures.items():
        page.figure(figure, CAPTIONS[name])
    _reconstruction(page, metrics)
    _separation(page, metrics)
    _probes(page, metrics)
    _smoothness(page, metrics["smoothness"])
    _shifts(page, metrics["shifts"])
    page.heading("Definitions")
    page.facts(DEFINITIONS)
    return page


def _cards(metrics: Mapping[str, Any]) -> list[Card]:
    ours, pca, about = metrics["reconstruction"]["beta-VAE"], metrics["reconstruction"]["PCA"], metrics["about"]
    cards = [
        # From few faces it has fewer components than the code has latents.
        Card("reconstruction MSE", years(ours["mse"], 5), f"{about['coders']['PCA']}: {years(pca['mse'], 5)}"),
        Card("rate of the person", f"{years(metrics['rate']['z_id'], 1)}", "nats a face"),
    ]
    if metrics["age"]:
        cards.append(Card("age from z_age, MAE", years(metrics["age"]["mae"]), "years"))
    probes = next((found for name, found in metrics["probes"].items() if "alone" in name), None)
    if probes:
        cards.append(
            Card(
                "age left in z_id", years(probes["ratio"]), f"of the constant's MAE, by the {probes['strongest']} probe"
            )
        )
    return cards


def painted(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows of the table of codes: what each pays, and how well it rebuilds the same held-out faces."""
    names = list(next(iter(metrics["reconstruction"].values())))
    rows = [
        [
            coder,
            count(metrics["about"]["coders_parameters"].get(coder)),
            years(metrics["rates"].get(coder), 1),
            *(years(found[name], DIGITS[name]) for name in names),
        ]
        for coder, found in metrics["reconstruction"].items()
    ]
    return ["code", "parameters", "rate, nats", *(LABELS[name] for name in names)], rows


def known(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows of the table of codes: where each has the age, and what its person's part still knows of it."""
    rows = []
    for coder in metrics["reconstruction"]:
        found = metrics["separation"].get(coder)
        if found is None:
            continue
        age = found["factors"].get("age")
        probe = metrics["probes"].get(f"{coder}, z_id alone") or metrics["probes"].get(coder) or {}
        rows.append(
            [
                coder,
                None if age is None else years(age["mig"], 3),
                None if age is None else "{:.3f} to {:.3f}".format(*age["mig"]["null"]),
                None if age is None else years(age["sap"], 3),
                years(found["disentanglement"], 3),
                years(probe.get("ratio")),
                probe.get("strongest"),
                years(metrics["ages"].get(coder)),
            ]
        )
    return [*("code", "MIG of age", "null", "SAP of age", "DCI"), "age in z_id", "by", "age MAE of z_age"], rows


def _reconstruction(page: Page, metrics: Mapping[str, Any]) -> None:
    page.heading("The codes side by side")
    page.table(*painted(metrics))
    page.table(*known(metrics))
    page.note(
        "Age in z_id: the strongest probe's MAE over the constant median's; of a code without a part for the age, in "
        "all of it. A code that is told the age, or taught it, has its MIG from that."
    )
    page.points([f"rate of {name}: **{years(value, 2)}** nats a face" for name, value in metrics["rate"].items()])


def _separation(page: Page, metrics: Mapping[str, Any]) -> None:
    page.heading("What is where in the code")
    page.note(
        "z_age is taught the age: its MIG is supervision, not discovery. Factors of real faces go together, so a gap "
        "may be theirs and not the code's."
    )
    for coder, found in metrics["separation"].items():
        rows = [
            [
                words(name),
                years(one["mig"], 3),
                "{:.3f} to {:.3f}".format(*one["mig"]["null"]),
                years(one["sap"], 3),
                years(one["completeness"], 3),
                years(one["informativeness"], 3),
                one["best"],
                count(one["n"]),
            ]
            for name, one in found["factors"].items()
        ]
        headers = ["factor", "MIG", "null", "SAP", "completeness", "informativeness", "best latent", "faces"]
        page.table(headers, rows, caption=f"{coder}: disentanglement {years(found['disentanglement'], 3)}")


def _probes(page: Page, metrics: Mapping[str, Any]) -> None:
    page.heading("What is left of the age")
    rows = [
        [
            coder,
            *(years(found["probes"][name]) for name in ("linear", "boosted", "mlp")),
            years(found["constant"]),
            f"{years(found['ratio'])}",
        ]
        for coder, found in metrics["probes"].items()
        if found
    ]
    if not rows:
        page.text("Too few faces of known age for probes.")
        return
    page.table(["code", "linear", "boosted", "MLP", "constant", "strongest / constant"], rows, "MAE of age in years")


def _smoothness(page: Page, found: Mapping[str, Any]) -> None:
    page.heading("Smoothness")
    facts = {
        "distance": found["distance"],
        "path length between faces": years(found["path_length"], 4),
        "largest over mean two-year step": years(found["largest_step"]),
        "Spearman of age and distance from the youngest": years(found["rising"], 3),
    }
    if "judged" in found:
        facts["Spearman of age and judged age"] = years(found["judged"], 3)
        facts["judged years a year"] = years(found["judged_slope"], 3)
    page.facts(facts)


def with_real_pairs(found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The figures of each shift vector, and below them what the same judges say of real pictures of one person."""
    same = found.get("same_person") or {}
    if not same.get("n"):
        return dict(found["routes"])
    name = f"real pictures, 20 to 40 years apart ({same['n']:,} pairs of {same['persons']:,} persons)"
    return {**found["routes"], name: same}


def _shifts(page: Page, found: Mapping[str, Any] | None) -> None:
    page.heading("A shift of 30 years")
    if found is None:
        page.text("Not judged: name an estimator of ages with `--judge`.")
        return
    judge = found["judge"]
    page.text(
        f"{count(found['n'])} faces of 35 to 65. The judge {judge['name']} errs by {years(judge['mae'])} years on the "
        f"faces as they are, by {years(judge['mae_reconstructed'])} on plain reconstructions."
    )
    if "caution" in judge:
        page.text(f"**Caution:** the judge {judge['name']}: {judge['caution']}.")
    routes = with_real_pairs(found)
    told = [key for key in SHIFTS if any(key in route for route in routes.values())]
    rows = []
    for name, route in routes.items():
        if "reason" in route:
            rows.append([name, route["reason"], *([None] * (len(told) - 1))])
            continue
        cells = [
            (share if key == "direction" or key.endswith("_kept") else years)(route.get(key))
            if number(route.get(key)).known
            else None
            for key in told
        ]
        rows.append([name, *cells])
    page.table(["vector", *(SHIFTS[key] for key in told)], rows)
