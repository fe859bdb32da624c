"""The figures and the page of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.evaluation.classes import probabilities
from mien.evaluation.predictions import Predictions
from mien.evaluation.worst import exact_rows
from mien.faces import CONTINUOUS, EXPRESSIONS, VOCABULARIES
from mien.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    metrics: Mapping[str, Any],
    predictions: Predictions,
    images: Sequence[np.ndarray | None],
    folder: Path,
    terms: Sequence[str] = (),
    tiles: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write the figures and the page of an evaluation; `images` are the worst faces', `tiles` those of
    `tiles.tiles`. Returns the page."""
    from mien.report import figures as draw
    from mien.report.evaluation import evaluation_page

    age, about = metrics.get("age", {}), metrics["about"]
    worst = [
        {**face, "image": image, "truth": face["true"], "prediction": face["predicted"]}
        for face, image in zip(age.get("worst", []), images, strict=True)
    ]
    figures: dict[str, Figure] = {}
    if any(predictions.has(f"true_{name}") for name in ("age_low", "gender", "race")):
        figures["dataset_analysis"] = draw.dataset_analysis(
            predictions.numbers("true_age_low"),
            predictions.numbers("true_age_high"),
            predictions.strings("true_gender"),
            predictions.strings("true_race"),
        )
    if "mae" in age:
        rows = exact_rows(predictions)
        true, predicted = predictions.numbers("true_age_low")[rows], predictions.numbers("age")[rows]
        figures["error_analysis"] = draw.error_analysis(age, true, predicted)
        figures["cumulative_score"] = draw.cumulative_score(age["cs"], age["constant"]["cs"])
        if "coverage90" in age:
            figures["coverage"] = draw.coverage(age)
        if any("train_n" in group for table in age["groups"].values() for group in table.values()):
            figures["training_count"] = draw.training_count(age)
        draw.save(figures["error_analysis"], folder / "figures" / "error_analysis.png")
        sheet = draw.worst_predictions(
            images,
            [face["truth"] for face in worst],
            [face["prediction"] for face in worst],
            [face["tags"] for face in worst],
        )
        draw.save(sheet, folder / "figures" / "worst_predictions.png")
    for name, part in metrics.items():
        if "confusion" in part:
            figures[f"confusion_{name}"] = draw.confusion(part["confusion"], part["classes"])
        if "ece" in part:
            right = predictions.strings(name) == predictions.strings(f"true_{name}")
            labelled = np.array([value is not None for value in predictions.strings(f"true_{name}")])
            confidence = np.where(labelled, predictions.numbers(f"{name}_p"), np.nan)
            figures[f"reliability_{name}"] = draw.reliability(confidence, right)
        if "auroc" in part and name in VOCABULARIES:
            scores = probabilities(predictions, name, VOCABULARIES[name])
            true = predictions.codes(f"true_{name}", VOCABULARIES[name])
            if scores is not None and len(VOCABULARIES[name]) > 2:
                figures[f"curves_{name}"] = draw.class_curves(true, scores, VOCABULARIES[name], name.capitalize())
    if all(name in metrics for name in CONTINUOUS):
        figures["affect_plane"] = draw.affect_plane(
            np.stack([predictions.numbers(f"true_{name}") for name in CONTINUOUS], axis=1),
            np.stack([predictions.numbers(name) for name in CONTINUOUS], axis=1),
            predictions.codes("true_expression", EXPRESSIONS),
        )
        draw.save(figures["affect_plane"], folder / "figures" / "affect_plane.png")
    if "confusion_expression" in figures:
        draw.save(figures["confusion_expression"], folder / "figures" / "confusion_expression.png")
        if "curves_expression" in figures:
            draw.save(figures["curves_expression"], folder / "figures" / "curves_expression.png")
    if tiles:
        draw.save(draw.right_and_wrong(tiles), folder / "figures" / "grid.png")
    facts = {
        "Model": about["model"],
        "Faces": f"{about['faces']:,} of split {about['split']!r}, {about['groups']:,} independent groups",
        "Not readable": len(about["rejected"]),
        **({"Caution": about["caution"]} if "caution" in about else {}),
        "Calibration": about["calibration"],
        "Intervals": f"95 %, bootstrap of {about['resamples']:,} resamples by group",
        "Manifest": about["manifest"],
    }
    page = evaluation_page(metrics, figures, worst, facts, terms, tiles)
    report = folder / f"report.{about['split']}.html"
    write_text(report, page)
    write_text(folder / "report.html", page)
    return report
