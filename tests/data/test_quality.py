"""Measures follow what was done to a picture; tags name it; a filter refuses it."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter
from skimage.data import astronaut

from mien.data.quality import TAGS, QualityFilter, QualitySettings, faults, load_filter, measure, tags
from mien.errors import MienError


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """The face of the photo that comes with scikit-image, 128 px."""
    return Image.fromarray(astronaut()[20:220, 120:320]).resize((128, 128), Image.LANCZOS)


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


CHANGES = {
    "blur": lambda p: p.filter(ImageFilter.GaussianBlur(4)),
    "low resolution": lambda p: p.resize((28, 28), Image.BILINEAR).resize((128, 128), Image.BICUBIC),
    "dark": lambda p: ImageEnhance.Brightness(p).enhance(0.3),
    "bright": lambda p: p.point(lambda value: 180 + value * 75 // 255),
    "low contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.2),
    "grey": lambda p: p.convert("L"),
}


def test_a_good_picture_has_no_tags(photo: Image.Image) -> None:
    assert tags(measure(array(photo))) == []


@pytest.mark.parametrize("tag", TAGS)
def test_what_was_done_to_a_picture_is_named(tag: str, photo: Image.Image) -> None:
    assert tag in tags(measure(array(CHANGES[tag](photo))))


def test_a_small_picture_is_of_low_resolution(photo: Image.Image) -> None:
    small = array(photo.resize((48, 48), Image.LANCZOS))
    assert measure(small)["side"] == 48
    assert "low resolution" in tags(measure(small))
    assert "low resolution" not in tags(measure(small), QualitySettings(small=0, low_resolution=0))


def test_sharpness_falls_with_blur_and_does_not_follow_contrast(photo: Image.Image) -> None:
    sharpness = [measure(array(photo.filter(ImageFilter.GaussianBlur(radius))))["sharpness"] for radius in (0, 1, 2, 4)]
    assert sharpness == sorted(sharpness, reverse=True)
    pale = measure(array(ImageEnhance.Contrast(photo).enhance(0.5)))["sharpness"]
    assert pale == pytest.approx(sharpness[0], rel=0.1)


def test_light_contrast_and_colour_by_hand() -> None:
    image = np.zeros((3, 112, 112), np.uint8)
    image[:, :, 56:] = 200
    measures = measure(image)
    assert measures["light"] == pytest.approx(100 / 255, abs=1e-3)
    assert measures["contrast"] == pytest.approx(200 / 255, abs=1e-3)
    assert measures["colour"] == pytest.approx(0, abs=1e-6)
    red = np.zeros((3, 112, 112), np.uint8)
    red[0] = 255
    # Luminance of red is .299, so the channels lie .701, .299 and .299 from it.
    assert measure(red)["colour"] == pytest.approx(np.sqrt((0.701**2 + 2 * 0.299**2) / 3), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(0, 255), st.integers(0, 255))
def test_any_picture_has_finite_measures(height: int, width: int, low: int, high: int) -> None:
    random = np.random.default_rng(height * width)
    image = random.integers(min(low, high), max(low, high) + 1, (3, height, width), dtype=np.uint8)
    measures = measure(image)
    assert all(np.isfinite(value) and value >= 0 for value in measures.values())
    assert measures["side"] == min(height, width)
    assert set(tags(measures)) <= set(TAGS)


def test_a_filter_refuses_with_what_was_measured(photo: Image.Image) -> None:
    measures = measure(array(photo))
    assert faults(measures, QualityFilter()) == ""
    soft = measure(array(photo.filter(ImageFilter.GaussianBlur(6))))
    assert faults(soft, QualityFilter()).startswith(f"quality: blur (sharpness {round(soft['sharpness'], 4):g} below")
    assert faults(soft, QualityFilter(blur=None, low_resolution=None)) == ""
    small = {**measures, "side": 20.0, "colour": 0.001}
    assert faults(small, QualityFilter()) == "quality: low resolution, grey (side 20 below 32; colour 0.001 below 0.01)"
    # A filter is further out than the tags: what it refuses has the tag.
    for name, change in CHANGES.items():
        found = measure(array(change(photo)))
        refused = faults(found, QualityFilter()).partition(" (")[0].removeprefix("quality: ")
        assert set(filter(None, refused.split(", "))) <= set(tags(found)), name
    for scores, told in (
        ({"face_score": 3.1}, ""),
        ({"face_score": float("nan")}, "quality: no sure face (face score none below 1)"),
        ({"face_score": 3.1, "second_face_score": float("nan")}, ""),
        ({"second_face_score": 1.5}, "quality: a second face (second face score 1.5 above 0)"),
    ):
        assert faults({**measures, **scores}, QualityFilter()) == told


def test_a_file_of_thresholds_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "quality.yaml"
    file.write_text("blur: 0.02\ngrey: null\n")
    assert load_filter(file) == QualityFilter(blur=0.02, grey=None)
    file.write_text("")
    assert load_filter(file) == QualityFilter()
    for text, message in (
        ("blurr: 1", "unknown threshold 'blurr'; did you mean 'blur'?"),
        ("dark: 3", "dark 3: input should be less than or equal to 1"),
        ("- 1", "thresholds [1]: input should be a valid dictionary"),
        ("a: [", "cannot be read as YAML"),
    ):
        file.write_text(text)
        with pytest.raises(MienError, match=re.escape(message)):
            load_filter(file)
