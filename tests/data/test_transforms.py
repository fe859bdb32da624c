import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mien.data.pictures import resize
from mien.data.transforms import PRESETS, AugmentSettings, Chance, augment, face_seed

SIZE = 64
ALWAYS = {"probability": 1.0}


def faces(count: int = 6) -> list[np.ndarray]:
    """Smooth colourful pictures of different sizes."""
    rng = np.random.default_rng(7)
    coarse = [rng.integers(30, 226, (3, 6, 6), dtype=np.uint8) for _ in range(count)]
    return [resize(image, 90 + 11 * number) for number, image in enumerate(coarse)]


def one(settings: object, image: np.ndarray | None = None, seed: int = 5, size: int = SIZE) -> np.ndarray:
    picture = faces(1)[0] if image is None else image
    return augment([picture], None, [seed], size, AugmentSettings.model_validate(settings))[0][0]


def operations() -> list[str]:
    return [name for name, field in AugmentSettings.model_fields.items() if isinstance(field.default, Chance)]


@pytest.mark.parametrize("preset", ["faces", "harsh", "light"])
def test_a_face_depends_on_its_seed_alone(preset: str) -> None:
    chosen = AugmentSettings.model_validate(preset)
    images = faces(6)
    points = np.random.default_rng(0).uniform(0, 90, (6, 68, 2)).astype(np.float32)
    seeds = [face_seed(3, 1, row) for row in range(6)]
    together, moved = augment(images, points, seeds, SIZE, chosen)
    assert together.shape == (6, 3, SIZE, SIZE)
    assert together.dtype == np.uint8
    assert moved is not None
    for face in reversed(range(6)):
        alone, point = augment([images[face]], points[face : face + 1], [seeds[face]], SIZE, chosen)
        np.testing.assert_array_equal(alone[0], together[face])
        assert point is not None
        np.testing.assert_array_equal(point[0], moved[face])


def test_seeds_differ_by_seed_epoch_row_and_time() -> None:
    numbers = {
        face_seed(s, e, r, a) for s in (0, 1, 2**40) for e in (0, 1, 500) for r in (0, 1, 10**6) for a in (0, 1, 9)
    }
    assert len(numbers) == 81
    looks = {one("faces", seed=face_seed(s, e, r)).tobytes() for s in (0, 1) for e in (0, 1) for r in (0, 1, 2)}
    assert len(looks) == 12


def test_nothing_happens_unless_asked() -> None:
    chosen = AugmentSettings()
    images = faces(3)
    result, _ = augment(images, None, [1, 2, 3], SIZE, chosen)
    for image, face in zip(images, result, strict=True):
        np.testing.assert_array_equal(face, resize(image, SIZE))


@pytest.mark.parametrize("name", operations())
def test_each_operation_changes_the_picture_when_asked(name: str) -> None:
    plain = one("none")
    changed = [(one({name: ALWAYS}, seed=seed) != plain).any() for seed in range(8)]
    assert sum(changed) >= 4  # a window may happen to be the whole picture, to a pixel
    np.testing.assert_array_equal(one({name: {"probability": 0.0}}), plain)


@pytest.mark.parametrize("name", ["noise", "erase", "brightness"])
def test_switching_an_operation_on_leaves_the_others_as_they_were(name: str) -> None:
    """The window must not change with an operation on pixels."""
    window = {"scale": ALWAYS, "shift": ALWAYS, "rotation": ALWAYS, "flip": 0.5}
    points = np.random.default_rng(0).uniform(0, 90, (1, 68, 2)).astype(np.float32)
    images = faces(1)
    moved = [
        augment(images, points, [9], SIZE, AugmentSettings.model_validate(chosen))[1]
        for chosen in (window, {**window, name: ALWAYS})
    ]
    np.testing.assert_array_equal(moved[0], moved[1])


def test_probabilities_are_kept() -> None:
    chosen = AugmentSettings.model_validate({"flip": 0.3})
    image = np.zeros((3, 16, 16), dtype=np.uint8)
    image[:, :, :8] = 255
    result, _ = augment([image] * 2000, None, [face_seed(0, 0, row) for row in range(2000)], 16, chosen)
    flipped = (result[:, 0, 0, 0] == 0).mean()
    assert abs(flipped - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_rare_faces_are_altered_more_often_but_not_flipped() -> None:
    chosen = AugmentSettings.model_validate(
        {"flip": 0.3, "brightness": {"probability": 0.2, "between": [2, 2]}, "rare": 0.5}
    )
    image = np.full((3, 16, 16), 40, dtype=np.uint8)
    image[:, :, :8] = 80
    seeds = [face_seed(0, 0, row) for row in range(2000)]
    for times, bright in ((1.0, 0.2), (5.0, 1 - 0.8**3), (0.2, 0.2)):
        result, _ = augment([image] * 2000, None, seeds, 16, chosen, [times] * 2000)
        margin = 4 * (0.25 / 2000) ** 0.5
        assert abs((result.max(axis=(1, 2, 3)) == 160).mean() - bright) < margin
        flipped = result[:, 0, 0, 0] < result[:, 0, 0, -1]
        assert abs(flipped.mean() - 0.3) < margin


def test_colour_follows_the_formulas() -> None:
    image = np.zeros((3, SIZE, SIZE), dtype=np.uint8)
    image[0], image[1], image[2] = 100, 60, 40
    grey = 0.299 * 100 + 0.587 * 60 + 0.114 * 40

    def pixel(**chosen: float) -> np.ndarray:
        ranges = {name: {"probability": 1, "between": (value, value)} for name, value in chosen.items()}
        return one(ranges, image)[:, 5, 5].astype(float)

    was = np.array([100.0, 60.0, 40.0])
    np.testing.assert_allclose(pixel(brightness=1.5), was * 1.5, atol=0.51)
    np.testing.assert_allclose(pixel(contrast=0.5), grey + (was - grey) * 0.5, atol=0.51)
    np.testing.assert_allclose(pixel(saturation=0.25), grey + (was - grey) * 0.25, atol=0.51)
    np.testing.assert_allclose(pixel(gamma=2.0), 255 * (was / 255) ** 2, atol=0.51)
    both = pixel(brightness=1.2, contrast=0.5)
    np.testing.assert_allclose(both, 1.2 * (grey + (was - grey) * 0.5), atol=0.51)
    np.testing.assert_allclose(one({"greyscale": 1.0}, image)[:, 5, 5], grey, atol=0.51)


def test_the_window_has_the_scale_the_stretch_and_the_shift_that_were_drawn() -> None:
    ranges = {"scale": 0.8, "stretch": 1.44, "shift": 0.05}
    chosen = {name: {"probability": 1, "between": (value, value)} for name, value in ranges.items()}
    points = np.full((1, 68, 2), (69.5, 59.5), dtype=np.float32)
    image = np.zeros((3, 100, 100), dtype=np.uint8)
    _, moved = augment([image], points, [1], 100, AugmentSettings.model_validate(chosen))
    assert moved is not None
    # 96 wide (0.8 x 1.2) and 67 high (0.8 / 1.2) about (55, 55): whole pixels are cut out.
    np.testing.assert_allclose(moved[0, 0], [50 + 15 / 0.96 - 0.5, 50 + 5 / 0.667 - 0.5], atol=1)


def test_a_grey_face_stays_grey_under_noise_and_jpeg() -> None:
    result = one({"greyscale": 1.0, "noise": ALWAYS, "jpeg": ALWAYS}).astype(int)
    assert np.ptp(result, axis=0).max() <= 2


def test_noise_has_its_standard_deviation() -> None:
    image = np.full((3, 128, 128), 128, dtype=np.uint8)
    noisy = one({"noise": {"probability": 1, "between": (10, 10)}}, image, size=128)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert abs(np.corrcoef(noisy.reshape(3, -1))[0, 1]) < 0.05  # each channel has its own


def test_erasing_covers_its_share() -> None:
    image = np.full((3, 100, 100), 128, dtype=np.uint8)
    for seed in range(20):
        result = one({"erase": {"probability": 1, "between": (0.1, 0.1)}}, image, seed, size=100)
        covered = (result != 128).any(axis=0)
        assert covered.mean() == pytest.approx(0.1, abs=0.012)
        rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
        assert covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()


def test_down_scaling_and_blur_take_detail_away() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), dtype=np.uint8)

    def detail(settings: object) -> float:
        return float(np.abs(np.diff(one(settings, image).astype(float), axis=2)).mean())

    plain = detail("none")
    assert detail({"downscale": {"probability": 1, "between": (16, 16)}}) < 0.2 * plain
    assert detail({"blur": {"probability": 1, "between": (3, 3)}}) < 0.3 * plain
    edge = np.zeros((3, SIZE, SIZE), dtype=np.uint8)
    edge[:, :, SIZE // 2 :] = 255
    rise = np.diff(one({"blur": {"probability": 1, "between": (5, 5)}}, edge)[0, SIZE // 2].astype(float)) / 255
    place = np.arange(SIZE - 1)
    spread = np.sqrt((rise * place**2).sum() - (rise * place).sum() ** 2)
    assert spread == pytest.approx(0.05 * SIZE, rel=0.1)
    np.testing.assert_array_equal(
        one({"downscale": {"probability": 1, "between": (SIZE, SIZE)}}, image), one("none", image)
    )


def test_side_light_is_brighter_on_one_side_and_keeps_the_mean() -> None:
    image = np.full((3, SIZE, SIZE), 100, dtype=np.uint8)
    sides = set()
    for seed in range(20):
        lit = one({"side_light": {"probability": 1, "between": (0.5, 0.5)}}, image, seed)[0].astype(float)
        assert lit.mean() == pytest.approx(100, abs=1)
        across, down = lit[:, -1].mean() - lit[:, 0].mean(), lit[-1].mean() - lit[0].mean()
        assert np.hypot(across, down) == pytest.approx(100, abs=2)  # half as bright again, and half as dark
        sides.add((across > 0, down > 0))
    assert len(sides) == 4


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**128 - 1), side=st.integers(8, 150), preset=st.sampled_from(sorted(PRESETS)))
def test_any_size_and_any_seed_work(seed: int, side: int, preset: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, side, side + 3), dtype=np.uint8)
    image.setflags(write=False)
    assert one(preset, image, seed, size=48).shape == (3, 48, 48)


def test_presets_and_overrides() -> None:
    chosen = AugmentSettings.model_validate({"preset": "faces", "noise": {"probability": 0}, "flip": 0})
    assert chosen.noise == Chance(probability=0, between=(2, 15))
    assert chosen.flip == 0
    assert chosen.rotation.probability == 0.5
    assert AugmentSettings.model_validate(chosen.model_dump()) == chosen
    assert AugmentSettings() == AugmentSettings.model_validate("none")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("face", "faces"),
        ({"rotatoin": ALWAYS}, "rotatoin"),
        ({"noise": {"probability": 1.5}}, "less than or equal to 1"),
        ({"noise": {"between": [5, 2]}}, "rising"),
        ({"jpeg": {"between": [0, 50]}}, "from 1"),
        ({"noise": {"strength": 3}}, "strength"),
    ],
)
def test_wrong_settings_are_refused(value: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AugmentSettings.model_validate(value)
