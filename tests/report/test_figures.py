"""Every figure is drawn, with warnings as errors, from usual and from degenerate input."""

import base64
import io
import math
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy.stats import binomtest

from mien.faces import AGE_BIN_NAMES
from mien.metrics.calibration import expected_calibration_error
from mien.report import figures
from mien.report.figures.classes import wilson
from mien.report.figures.dataset import by_bin, short_count, spread_ages
from mien.report.figures.pictures import as_picture
from mien.report.style import codes, plain, shorten

NOTHING = np.empty(0)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of what other tests left open, collected by chance now
        yield


def draw(figure: Figure) -> str:
    """Draw the figure to a picture that is no blank sheet, and return all its text."""
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=40)
        pixels = np.asarray(Image.open(stream).convert("L"))
    assert pixels.min() < 128 < pixels.max()
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


# The panels of a set of faces


def test_dataset_analysis_counts(evaluation):
    text = draw(
        figures.dataset_analysis(
            evaluation.truth, evaluation.truth, evaluation.gender, evaluation.race, "A $set$ of faces"
        )
    )
    assert f"n {len(evaluation.truth):,}" in text
    assert f"Male  n {(evaluation.gender == 0).sum():,}" in text
    assert f"Others  n {(evaluation.race == 4).sum():,}" in text
    assert f"70+  n {(evaluation.truth >= 70).sum():,}" in text


def test_dataset_analysis_with_missing_labels_and_intervals():
    low = np.array([20.0, 30.0, np.nan, 3.0])
    high = np.array([20.0, 39.0, np.nan, 9.0])
    text = draw(figures.dataset_analysis(low, high, ["Male", None, "Female", None], [-1, -1, -1, -1]))
    assert "1 without age" in text
    assert "2 intervals, spread" in text
    assert "median 20" in text
    assert "2 without gender" in text
    assert "no face carries a race" in text


def test_the_median_of_ages_is_the_one_that_the_page_tells():
    age = np.array([40.2, 42.7, 43.1, 90.0])
    assert f"{np.median(age):.0f}" == "43"  # 42 by its whole years
    assert "median 43" in draw(figures.dataset_analysis(age, age, [-1] * 4, [-1] * 4))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_dataset_analysis_without_any_label(n):
    nan = np.full(n, np.nan)
    assert "no face carries an age" in draw(figures.dataset_analysis(nan, nan, [None] * n, [None] * n))


def test_affect_analysis_counts():
    valence = np.array([0.5, -0.5, np.nan, 0.0])
    arousal = np.array([0.25, np.nan, np.nan, 1.0])
    text = draw(figures.affect_analysis(np.array([1, 1, -1, 7]), valence, arousal))
    names = ("Happy  n 2", "Contempt  n 1", "1 without expression")
    for line in (*names, "valence: n 3, mean 0.00", "arousal: n 2, mean 0.62"):
        assert line in text
    assert "n 2; darkest cell: 1" in text


def test_affect_analysis_without_any_label():
    nan = np.full(3, np.nan)
    text = draw(figures.affect_analysis([None] * 3, nan, nan))
    for line in ("no face carries an expression", "no face carries either", "no face carries both"):
        assert line in text


def test_dataset_analysis_of_one_face():
    assert "n 1" in draw(figures.dataset_analysis([33.0], [33.0], ["Female"], ["Black"]))


def test_interval_ages_are_spread_over_their_years():
    counts = spread_ages(np.array([3.0, 40.0, 40.0, np.nan]), np.array([9.0, 40.0, 41.0, np.nan]))
    assert counts[3:10] == pytest.approx([1 / 7] * 7)
    assert counts[40] == 1.5
    assert counts[41] == 0.5
    assert counts.sum() == pytest.approx(3)
    assert by_bin(counts) == pytest.approx([1, 0, 0, 0, 2, 0, 0, 0])


def test_ages_at_both_ends_are_counted():
    counts = spread_ages(np.array([0.0, 120.0]), np.array([0.0, 120.0]))
    assert (counts[0], counts[120]) == (1, 1)


# Errors of age


def test_error_analysis_shows_every_group_with_its_n(evaluation):
    age = evaluation.metrics["age"]
    text = draw(figures.error_analysis(age, evaluation.truth, evaluation.prediction))
    for name, group in age["groups"]["race"].items():
        assert f"{name}  n {group['n']:,}" in text
        assert f"{group['mae']['value']:.2f}" in text
    error = evaluation.prediction - evaluation.truth
    assert f"MAE {np.abs(error).mean():.2f}" in text
    assert f"constant predictor {age['constant']['mae']['value']:.2f}" in text
    slope = np.polyfit(evaluation.truth, evaluation.prediction, 1)[0]
    assert f"slope {slope:.2f}" in text


def test_error_analysis_of_few_faces_and_small_groups():
    age = {
        "mae": {"value": 3.0, "low": None, "high": None, "n": 2},
        "groups": {"gender": {"Male": {"n": 12, "suppressed": True}, "Female": {"n": 0, "mae": None}}},
    }
    text = draw(figures.error_analysis(age, [20.0, np.nan, 30.0], [25.0, 40.0, 31.0]))
    assert "too few to say" in text
    assert "no figure" in text
    assert "no labels to group by" in text


@pytest.mark.parametrize("n", [0, 1])
def test_error_analysis_of_nearly_nothing(n):
    draw(figures.error_analysis({}, np.full(n, 30.0), np.full(n, 31.0)))
    assert "no face has both" in draw(figures.error_analysis({}, np.full(n, np.nan), np.full(n, 3.0)))


def test_perfect_and_constant_predictions():
    same = np.full(1000, 30.0)
    draw(figures.error_analysis({}, same, same))
    draw(figures.error_analysis({}, np.arange(1000) % 90.0, same))


def test_cumulative_score(evaluation):
    age = evaluation.metrics["age"]
    text = draw(figures.cumulative_score(age["cs"], age["constant"]["cs"]))
    assert f"{age['cs'][5] * 100:.1f} %" in text
    assert "constant predictor" in text
    assert "no face" in draw(figures.cumulative_score([math.nan] * 16))


def test_training_count_names_each_group(evaluation):
    text = draw(figures.training_count(evaluation.metrics["age"]))
    for name in ("Female", "White", "20-29", "training faces"):
        assert name in text
    assert "Male x White" not in text


def test_training_count_that_is_unknown():
    assert "not known" in draw(figures.training_count({"groups": {"race": {"White": {"n": 50}}}}))
    assert "not known" in draw(figures.training_count({}))


@pytest.mark.parametrize(("offset", "said"), [(0, True), (20, False), (-20, False)])
def test_the_old_are_said_to_look_younger_only_where_they_do(offset, said):
    truth = np.linspace(20, 60, 50)
    prediction = 40 + 0.9 * (truth - 40) + offset
    assert ("the old look younger" in draw(figures.error_analysis({}, truth, prediction))) is said


# Uncertainty


def test_coverage_marks_the_promise(evaluation):
    text = draw(figures.coverage(evaluation.metrics["age"]))
    assert "the promised 90 %" in text
    assert f"{evaluation.metrics['age']['groups']['race']['Others']['coverage90']['value'] * 100:.1f}" in text


def test_coverage_with_suppressed_groups_and_without_intervals():
    covered = {"value": 0.9, "low": 0.85, "high": 0.95, "n": 100}
    age = {
        "coverage90": covered,
        "width90": {"value": 20.0, "low": 19.0, "high": 21.0, "n": 100},
        "groups": {"gender": {"Male": {"n": 5, "suppressed": True}, "Female": {"coverage90": covered}}},
    }
    assert "too few to say" in draw(figures.coverage(age))
    assert "no age intervals" in draw(figures.coverage({"mae": {"value": 3}}))


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_the_promised_coverage_is_in_view_however_far_off_the_intervals_are(share):
    covered = {"value": share, "low": share - 0.01, "high": share + 0.01, "n": 3000}
    axes = figures.coverage({"coverage90": covered, "width90": {"value": 20.0, "n": 3000}}).axes[0]
    low, high = axes.get_xlim()
    assert low < 90 < high
    (written,) = [text for text in axes.texts if text.get_text() == f"{share * 100:.1f}"]
    assert written.get_position()[0] == high


def test_spread_reliability():
    std = np.linspace(2, 12, 300)
    error = np.random.default_rng(0).normal(0, std)
    assert "n 300" in draw(figures.spread_reliability(std, error))
    assert "too few faces" in draw(figures.spread_reliability(std[:5], error[:5]))


# Classes


def test_confusion_shows_counts_and_shares():
    text = draw(figures.confusion([[90, 10], [0, 0]], ["Male", "Female"], "Gender"))
    assert "90.0 %\n90" in text
    assert "Female\nn 0" in text
    assert text.count("no face") == 2


def test_confusion_with_long_names_and_without_faces():
    names = ["White", "Southeast Asian and its islands", "Latino_Hispanic"]
    draw(figures.confusion(np.eye(3) * 12345, names))
    assert "no face carries" in draw(figures.confusion(np.zeros((3, 3)), names))


def test_reliability_error_by_hand():
    confidence = np.array([0.95] * 10 + [0.55] * 10 + [np.nan])
    correct = np.array([True] * 10 + [True] * 4 + [False] * 6 + [True])
    text = draw(figures.reliability(confidence, correct))
    # |0.95 - 1| / 2 + |0.55 - 0.4| / 2
    assert "ECE 10.0 %" in text
    assert "n 20" in text


def test_reliability_shows_the_error_of_the_tables():
    """Ten bins would call 0.61 and 0.69 one; as the metrics have it they are two, and 0.6 is of the lower one."""
    confidence = np.repeat([0.6, 0.61, 0.69], 10)
    correct = np.repeat([True, True, False], 10)
    figure = figures.reliability(confidence, correct)
    expected = float(expected_calibration_error(confidence, correct))
    assert expected == pytest.approx((0.4 + 0.39 + 0.69) / 3)
    assert f"ECE {expected * 100:.1f} %" in draw(figure)
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in figure.axes[1].patches]
    np.testing.assert_allclose(bars, [(8.5 * 100 / 15, 10), (9.5 * 100 / 15, 10), (10.5 * 100 / 15, 10)])


def test_reliability_without_faces():
    assert "no face" in draw(figures.reliability(NOTHING, NOTHING))
    draw(figures.reliability([1.0, 0.0], [True, False]))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (90, 100), (12, 12)])
def test_wilson_is_scipys(hits, n):
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((interval.low, interval.high), abs=1e-7)


# Training, comparison


def test_training_history():
    history = [
        {
            "epoch": epoch,
            "lr": 1e-3 / epoch,
            "train": {"age/ordinal": 30 / epoch**2, "gender": 0.5},
            "select": {
                "age/mae": 9 / epoch,
                "gender/accuracy": None if epoch == 1 else 0.9,
                "score": math.nan,
            },
        }
        for epoch in range(1, 9)
    ]
    text = draw(figures.training_history(history, best=7))
    for word in ("age/ordinal", "mae on select", "accuracy on select", "Learning rate", "epoch 7"):
        assert word in text
    assert "nothing was measured" in text  # the NaN score


def test_training_history_of_one_epoch_and_none():
    draw(figures.training_history([{"epoch": 1, "lr": 0.1, "train": {"age": 1.0}, "select": {}}]))
    assert "nothing was measured" in draw(figures.training_history([]))


# Pictures


def test_worst_predictions(pictures):
    text = draw(
        figures.worst_predictions(
            [*pictures, None],
            [3, 70, 31, 20, 8],
            [33.4, 41, 58, 5, 9],
            [["blur", "dark"], [], [], [], ["grey"]],
        )
    )
    assert "label 3 → predicted 33" in text
    assert "error +30" in text
    assert "error −29" in text
    assert "blur, dark" in text
    assert "picture not\nreadable" in text


def test_worst_predictions_of_nothing():
    assert "no face" in draw(figures.worst_predictions([], [], []))


def test_contact_sheet_wraps_and_escapes(pictures):
    captions = ["a/very/long/path/" * 6 + "x.jpg", "$5 and $6", "子供 two", ""]
    text = draw(figures.contact_sheet(pictures, captions, columns=3, title="faces"))
    assert "…" in text
    assert "子" not in text  # no glyph for it
    assert "two" in text
    draw(figures.contact_sheet(pictures[:1], ["one"]))
    assert "no picture" in draw(figures.contact_sheet([], []))


def test_pictures_of_every_layout():
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    expected = np.moveaxis(image, 0, -1)
    assert (as_picture(image) == expected).all()
    assert (as_picture(expected) == expected).all()
    assert as_picture(image[0]).shape == (4, 5, 3)
    assert as_picture(image[:1]).shape == (4, 5, 3)
    assert (as_picture(image / 255) == expected).all()


# Style


def test_figures_touch_no_global_state(evaluation):
    before = dict(matplotlib.rcParams)
    figures.coverage(evaluation.metrics["age"])
    assert dict(matplotlib.rcParams) == before


def test_users_settings_do_not_change_figures(evaluation):
    def picture():
        return figures.to_base64(figures.cumulative_score(evaluation.metrics["age"]["cs"]))

    usual = picture()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "axes.grid": True}):
        assert picture() == usual


def test_save_writes_a_whole_png(tmp_path):
    path = tmp_path / "figures" / "confusion.png"
    figures.save(figures.confusion([[1, 0], [0, 1]], ["Male", "Female"]), path)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
    assert [file.name for file in path.parent.iterdir()] == ["confusion.png"]


def test_what_a_file_and_a_page_show_is_painted_once(tmp_path, monkeypatch):
    figure, painted = figures.confusion([[1, 0], [0, 1]], ["Male", "Female"]), []
    monkeypatch.setattr(Figure, "savefig", lambda _, stream, **__: painted.append(1) or stream.write(b"a picture"))
    figures.save(figure, tmp_path / "confusion.png")
    assert base64.b64decode(figures.to_base64(figure)) == (tmp_path / "confusion.png").read_bytes() == b"a picture"
    assert painted == [1]


def test_save_leaves_nothing_when_it_fails(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        figures.save(Figure(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_codes_from_words_numbers_and_nan():
    assert codes(["Male", None, "Female", "?"], ("Male", "Female")).tolist() == [0, -1, 1, -1]
    assert codes(np.array([0, -1, 1], dtype=np.int8), ("Male", "Female")).tolist() == [0, -1, 1]
    assert codes(np.array([np.nan, 1.0]), ("Male", "Female")).tolist() == [-1, 1]


def test_text_helpers():
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 5) == "abc"
    assert len(shorten("x" * 100, 12)) == 12
    assert plain("a\n$b") == "a\n\\$b"
    assert [short_count(n) for n in (0, 87, 999.7, 1234, 34499, 1.1e6)] == [
        "0",
        "87",
        "1.0k",
        "1.2k",
        "34k",
        "1.1M",
    ]


def test_bins_of_the_figure_are_the_packages():
    assert len(by_bin(np.zeros(121))) == len(AGE_BIN_NAMES)


def test_training_history_of_many_terms_stays_readable():
    names = [f"generator/term {place}" for place in range(13)] + ["discriminator/real", "discriminator/r1"]
    history = [
        {"epoch": epoch, "lr": 1e-3, "train": {name: 2 ** (place % 5) / epoch for place, name in enumerate(names)}}
        for epoch in range(1, 6)
    ]
    drawn = figures.training_history(history, best=4)
    panels = {axes.get_title(loc="left"): axes for axes in drawn.axes}
    assert {
        "Training losses: generator (1)",
        "Training losses: generator (3)",
        "Training losses: discriminator",
    } <= set(panels)
    told = [line.get_label() for axes in drawn.axes for line in axes.get_lines()]
    assert sum(label.startswith("term") for label in told) == 13
    for title, axes in panels.items():
        if title.startswith("Training losses"):
            values = np.concatenate([line.get_ydata() for line in axes.get_lines() if len(line.get_ydata()) == 5])
            low, high = axes.get_ylim()
            # The lines take up two fifths of the panel or more.
            place = (np.log if axes.get_yscale() == "log" else np.asarray)(
                np.array([low, values.min(), values.max(), high])
            )
            assert (place[2] - place[1]) / (place[3] - place[0]) > 0.4
