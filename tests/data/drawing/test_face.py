"""Drawn faces: determinism, geometry of the landmarks, and that each factor shows as it should."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mien.data.align import TEMPLATES, crop_matrix, five_points
from mien.data.drawing.anatomy import SKIN, anatomy
from mien.data.drawing.canvas import Canvas
from mien.data.drawing.face import draw
from mien.data.drawing.factors import FEELINGS, RANGES, TRAITS, Factors, traits
from mien.errors import MienError
from mien.faces import EXPRESSIONS, GENDERS, RACES, Crop

some_factors = st.builds(
    Factors,
    person=st.integers(0, 2**31),
    age=st.floats(0, 100),
    gender=st.sampled_from(GENDERS),
    race=st.sampled_from(RACES),
    expression=st.sampled_from(EXPRESSIONS),
    intensity=st.floats(0, 1),
    yaw=st.floats(-30, 30),
    pitch=st.floats(-15, 15),
    roll=st.floats(-20, 20),
    light_x=st.floats(-1, 1),
    light_y=st.floats(-1, 1),
    light=st.floats(0, 1),
    warmth=st.floats(-1, 1),
    scene=st.integers(0, 2**31),
)


def difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@settings(max_examples=30, deadline=None)
@given(factors=some_factors, size=st.sampled_from([32, 47, 64, 112]))
def test_any_face_can_be_drawn_and_its_points_stand_in_order(factors: Factors, size: int) -> None:
    image, points = draw(factors, size)
    assert image.shape == (3, size, size)
    assert image.dtype == np.uint8
    assert image.std() > 3
    assert points.shape == (68, 2)
    assert points.dtype == np.float32
    upright = points - (size - 1) / 2
    c, s = math.cos(math.radians(factors.roll)), math.sin(math.radians(factors.roll))
    x, y = (upright @ np.array([[c, -s], [s, c]])).T / size + 0.5
    assert x[36] < x[39] < x[42] < x[45]  # corners of the eyes
    assert x[48] < x[51] < x[54]
    assert y[17:27].mean() < y[36:48].mean() < y[30] < y[48:60].mean() < y[8]
    for above, below in ((37, 41), (38, 40), (43, 47), (44, 46), (51, 57), (62, 66)):
        assert y[above] <= y[below] + 1e-4
    assert x[17:68].min() > -0.1
    assert x[17:68].max() < 1.1
    assert 0.75 < y[8] < 1.3


@settings(max_examples=20, deadline=None)
@given(factors=some_factors)
def test_an_upright_face_is_aligned_by_its_own_points(factors: Factors) -> None:
    points = draw(replace(factors, roll=0.0), 64)[1]
    np.testing.assert_allclose(crop_matrix(points, Crop("chip", 0.0, 64)), np.eye(2, 3), atol=1e-3)


def test_a_frontal_adult_meets_the_template() -> None:
    five = np.mean([five_points(draw(Factors(person), 100)[1]) for person in range(40)], axis=0)
    np.testing.assert_allclose((five + 0.5) / 100, TEMPLATES["chip"], atol=0.025)


def test_the_same_factors_draw_the_same_face() -> None:
    factors = Factors(5, age=44, expression="Happy", intensity=0.7, yaw=12)
    for first, second in zip(draw(factors, 96), draw(replace(factors), 96), strict=True):
        np.testing.assert_array_equal(first, second)
    assert difference(draw(factors, 96)[0], draw(replace(factors, person=6), 96)[0]) > 5
    assert difference(draw(factors, 96)[0], draw(replace(factors, scene=1), 96)[0]) > 1


def test_traits_are_a_persons_own() -> None:
    values = np.array([list(traits(person).values()) for person in range(500)])
    assert values.shape == (500, len(TRAITS))
    assert np.abs(values).max() == 2
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.2)
    assert len({tuple(row) for row in values}) == 500


@settings(max_examples=15, deadline=None)
@given(factors=some_factors)
def test_points_scale_with_the_picture(factors: Factors) -> None:
    small, large = draw(factors, 64)[1], draw(factors, 128)[1]
    np.testing.assert_allclose((small + 0.5) * 2, large + 0.5, atol=1e-3)


@pytest.mark.parametrize("size", [32, 33, 64, 200, 512])
def test_a_face_is_the_same_at_every_size(size: int) -> None:
    factors = Factors(11, age=52, gender="Male", race="Indian", expression="Happy", intensity=0.8, yaw=-14, roll=6)
    whole = Image.fromarray(draw(factors, 256)[0].transpose(1, 2, 0))
    image = Image.fromarray(draw(factors, size)[0].transpose(1, 2, 0))
    one, other = (np.asarray(picture.resize((16, 16), Image.Resampling.BOX)) for picture in (whole, image))
    assert difference(one, other) < 2.5


@settings(max_examples=15, deadline=None)
@given(factors=some_factors, angle=st.floats(-45, 45))
def test_roll_turns_the_points_about_the_middle(factors: Factors, angle: float) -> None:
    before, after = (
        draw(replace(factors, roll=0.0), 80)[1] - 39.5,
        draw(replace(factors, roll=angle), 80)[1] - 39.5,
    )
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    np.testing.assert_allclose(after, before @ np.array([[c, s], [-s, c]]), atol=1e-3)


def test_roll_turns_the_picture_with_its_points() -> None:
    upright, turned = (draw(Factors(3, roll=roll, light=0.0), 128)[0] for roll in (0.0, 20.0))
    back = Image.fromarray(turned.transpose(1, 2, 0)).rotate(20, Image.Resampling.BILINEAR)
    middle = slice(40, 88)
    face = upright.transpose(1, 2, 0)[middle, middle]
    assert difference(np.asarray(back)[middle, middle], face) < 4
    assert difference(turned.transpose(1, 2, 0)[middle, middle], face) > 8


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (10, -10), (-20, 5), (30, 0), (-30, 10)])
def test_points_are_where_the_pixels_show_them(yaw: float, pitch: float) -> None:
    """The place on the face that a pixel shows lies, by the landmarks' own projection, in that pixel."""
    size = 112
    for person in range(8):
        factors = Factors(person, age=45, gender="Male", yaw=yaw, pitch=pitch, roll=3.0 * person)
        canvas = Canvas(factors, anatomy(factors), size)
        np.testing.assert_allclose(canvas.landmarks, draw(factors, size)[1], atol=1e-4)
        row, column = np.nonzero(canvas.inside > 0)
        back = canvas.place(np.stack([canvas.x[row, column], canvas.y[row, column]], axis=1))
        away = np.hypot(back[:, 0] - column, back[:, 1] - row)
        assert np.median(away) < 0.02
        assert np.quantile(away, 0.99) < 0.5


def test_the_iris_is_at_the_eye_points() -> None:
    for yaw in (-25.0, 0.0, 25.0):
        image, points = draw(Factors(2, race="Black", yaw=yaw, expression="Surprise", intensity=1.0), 256)
        grey = image.mean(axis=0)
        for eye in (points[36:42], points[42:48]):
            left, top = np.floor(eye.min(axis=0)).astype(int)
            right, bottom = np.ceil(eye.max(axis=0)).astype(int)
            part = grey[top:bottom, left:right]
            assert part.max() - part.min() > 100  # white and pupil
            rows, columns = np.nonzero(part < 40)
            centre = np.array([columns.mean() + left, rows.mean() + top])
            assert np.abs(centre - eye.mean(axis=0)).max() < 0.25 * (right - left)


@pytest.mark.parametrize("ages", [(0, 3, 6, 10, 14, 18), (25, 40, 55, 70, 85, 100)], ids=["child", "adult"])
def test_pictures_grow_apart_with_age(ages: tuple[int, ...]) -> None:
    apart = np.zeros((len(ages), len(ages)))
    for person in range(16):
        base = Factors(person, gender=GENDERS[person % 2], race=RACES[person % 5])
        images = [draw(replace(base, age=age), 48)[0] for age in ages]
        apart += [[difference(one, other) for other in images] for one in images]
    for age in range(len(ages)):
        assert (np.diff(apart[age, age:]) > 0).all()
        assert (np.diff(apart[age, : age + 1]) < 0).all()


def test_a_year_changes_little_and_smoothly() -> None:
    base = Factors(4, gender="Male", race="Others")
    images = [draw(replace(base, age=age), 48)[0] for age in np.arange(0, 101, 1.0)]
    steps = [difference(one, other) for one, other in pairwise(images)]
    assert max(steps) < 6
    assert min(steps) > 0


def test_a_person_is_nearer_to_himself_at_another_age_than_to_another_person() -> None:
    """Identity beats age: judged on the points alone, which no hair or light disturbs."""
    ages = (20, 55)
    shapes = np.array(
        [[draw(Factors(person, age=age, gender="Female"), 100)[1].ravel() for age in ages] for person in range(30)]
    )
    shapes -= shapes.mean(axis=0)  # what everybody shares at an age
    apart = np.linalg.norm(shapes[:, None, 0] - shapes[None, :, 1], axis=2)
    assert (apart.argmin(axis=1) == np.arange(30)).mean() > 0.9


def test_children_have_short_jaws_large_eyes_and_small_noses() -> None:
    def proportions(age: float) -> np.ndarray:
        points = np.mean([draw(Factors(person, age=age), 100)[1] for person in range(20)], axis=0)
        eyes = np.linalg.norm(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))
        chin = points[8, 1] - points[36:48, 1].mean()
        opening = points[41, 1] - points[37, 1]
        nose = points[33, 1] - points[27, 1]
        return np.array([chin, opening, nose]) / eyes

    chin, opening, nose = np.array([proportions(age) for age in (1, 6, 12, 25)]).T
    assert (np.diff(chin) > 0).all()
    assert (np.diff(opening) < 0).all()
    assert (np.diff(nose) > 0).all()


def test_hair_greys_and_skin_roughens() -> None:
    young, old = (
        np.mean(
            [draw(Factors(p, age=age, gender="Male", race="Asian"), 64)[0].astype(float) for p in range(16)],
            axis=0,
        )
        for age in (25, 85)
    )
    sides = np.r_[0:4, 60:64]
    assert old[:, 8:20, sides].mean() > young[:, 8:20, sides].mean() + 10
    rough = [
        np.mean(
            [
                np.abs(np.diff(draw(Factors(p, age=age), 128)[0][1, 2:22, 44:84].astype(float), axis=0)).mean()
                for p in range(12)
            ]
        )
        for age in (25, 85)
    ]
    assert rough[1] > 1.25 * rough[0]


def test_skins_follow_their_order() -> None:
    def brightness(race: str) -> float:
        images = [draw(Factors(person, age=30, race=race), 32)[0] for person in range(25)]
        return float(np.mean([image[:, 17:20, 8:24] for image in images]))

    order = sorted(RACES, key=brightness, reverse=True)
    assert order == sorted(RACES, key=lambda race: sum(map(sum, SKIN[race])), reverse=True)
    assert order[0] == "White"
    assert order[-1] == "Black"


def test_genders_differ_in_adults_more_than_in_children() -> None:
    def apart(age: float) -> float:
        pairs = [[draw(Factors(p, age=age, gender=gender), 48)[1] for gender in GENDERS] for p in range(10)]
        return float(np.mean([np.abs(one - other).mean() for one, other in pairs]))

    assert apart(30) > 3 * apart(4)


def corners(points: np.ndarray) -> float:
    """How far the corners of the mouth lie above its middle, in eye distances."""
    eyes = np.linalg.norm(points[42:48].mean(axis=0) - points[36:42].mean(axis=0))
    return float((points[[62, 66], 1].mean() - points[[48, 54], 1].mean()) / eyes)


def test_expressions_move_the_points_they_should() -> None:
    def at(expression: str) -> np.ndarray:
        return np.mean([draw(Factors(p, expression=expression, intensity=1.0), 100)[1] for p in range(10)], axis=0)

    points = {name: at(name) for name in EXPRESSIONS}
    neutral = points["Neutral"]
    assert corners(points["Happy"]) > corners(neutral) + 0.05
    assert corners(points["Sad"]) < corners(neutral) - 0.05

    def gap(p: np.ndarray) -> float:
        return float(p[66, 1] - p[62, 1])

    def opening(p: np.ndarray) -> float:
        return float(p[41, 1] - p[37, 1])

    def raised(p: np.ndarray) -> float:
        return float(p[36:48, 1].mean() - p[17:27, 1].mean())

    assert gap(points["Surprise"]) > gap(points["Happy"]) > gap(neutral) + 1
    assert opening(points["Surprise"]) > opening(points["Fear"]) > opening(neutral) > opening(points["Happy"])
    assert raised(points["Surprise"]) > raised(neutral) > raised(points["Anger"])
    contempt = points["Contempt"] - neutral
    assert contempt[48, 1] - contempt[54, 1] > 2  # one corner only


@pytest.mark.parametrize("expression", [name for name in EXPRESSIONS if name != "Neutral"])
def test_an_expression_grows_with_its_intensity(expression: str) -> None:
    base = Factors(8, expression=expression)
    points = [draw(replace(base, intensity=share), 100)[1] for share in (0.0, 0.5, 1.0)]
    assert 0 < difference(points[0], points[1]) < difference(points[0], points[2])
    half, whole = replace(base, intensity=0.5), replace(base, intensity=1.0)
    assert (whole.valence, whole.arousal) == FEELINGS[expression]
    assert (half.valence, half.arousal) == (whole.valence / 2, whole.arousal / 2)


def test_yaw_moves_the_tip_of_the_nose_to_its_side() -> None:
    offsets = []
    for yaw in (-30.0, -10.0, 0.0, 10.0, 30.0):
        points = draw(Factors(1, yaw=yaw), 100)[1]
        offsets.append(points[30, 0] - points[36:48, 0].mean())
    assert (np.diff(offsets) > 0).all()
    assert abs(offsets[2]) < 0.01
    np.testing.assert_allclose(offsets, np.negative(offsets[::-1]), atol=0.5)


def test_light_from_the_right_lights_the_right() -> None:
    right, left = (draw(Factors(1, light_x=x, light=1.0), 64)[0].astype(float)[:, 24:44] for x in (1.0, -1.0))
    assert right[..., 40:54].mean() > left[..., 40:54].mean() + 15
    assert left[..., 10:24].mean() > right[..., 10:24].mean() + 15


@pytest.mark.parametrize(
    "wrong",
    [
        *[{name: low - 1} for name, (low, _) in RANGES.items()],
        *[{name: high + 1} for name, (_, high) in RANGES.items()],
        {"age": math.nan},
        {"gender": "male"},
        {"race": "Latin"},
        {"expression": "Joy"},
        {"person": -1},
        {"scene": -5},
    ],
    ids=str,
)
def test_impossible_factors_are_one_clear_error(wrong: dict[str, float | str]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(MienError, match=name) as error:
        Factors(**{"person": 0, **wrong})
    assert str(value) in str(error.value)


@pytest.mark.parametrize("size", [0, 31, 513])
def test_sizes_beyond_the_range_are_refused(size: int) -> None:
    with pytest.raises(MienError, match=f"size {size} .* 32 to 512"):
        draw(Factors(0), size)
