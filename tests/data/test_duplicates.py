"""Same pictures are found whatever was done to them; different faces in the same pose are not."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance
from scipy.ndimage import gaussian_filter

from mien.data import duplicates as module
from mien.data.duplicates import (
    Duplicates,
    DuplicateSettings,
    Thumbnails,
    find_duplicates,
    group_pairs,
    read_thumbnails,
)
from mien.data.manifest import Manifest
from mien.data.similarity import SIDE, aligned, thumbnail
from mien.faces import Crop, Face

SIZE = 200


def face(seed: int) -> Image.Image:
    """A picture with eyes, nose and mouth where every face has them, and skin, hair and light of its own."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE

    def spot(column: float, row: float, width: float, height: float) -> np.ndarray:
        column, row = random.normal((column, row), 0.012)
        return np.exp(-(((x - column) / width) ** 2) - ((y - row) / height) ** 2)

    light = 0.55 - 0.3 * spot(0.3, 0.3, 0.07, 0.035) - 0.3 * spot(0.7, 0.3, 0.07, 0.035)
    light = light - 0.15 * spot(0.5, 0.52, 0.05, 0.03) - 0.25 * spot(0.5, 0.7, 0.14, 0.03)
    for scale, strength in ((30, 0.12), (10, 0.07), (4, 0.05)):
        noise = gaussian_filter(random.normal(size=(SIZE, SIZE)), scale)
        light = light + strength * noise / noise.std()
    colours = np.clip(light, 0, 1)[..., None] * random.uniform(0.7, 1, 3)
    return Image.fromarray((colours * 255).astype(np.uint8))


def save_again(picture: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def watermark(picture: Image.Image) -> Image.Image:
    marked = picture.copy()
    ImageDraw.Draw(marked).text((20, 100), "STOCK PHOTO", fill="white", font_size=24)
    return marked


def side_light(picture: Image.Image) -> Image.Image:
    slope = np.linspace(0.5, 1.3, SIZE)[None, :, None]
    return Image.fromarray(np.clip(np.asarray(picture) * slope, 0, 255).astype(np.uint8))


def cut(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    return picture.crop((left, top, SIZE - right, SIZE - bottom)).resize((SIZE, SIZE), Image.BICUBIC)


CHANGES = {
    "saved at quality 60": lambda p: save_again(p, 60),
    "saved at quality 20": lambda p: save_again(p, 20),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.35),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.5),
    "less contrast": lambda p: ImageEnhance.Contrast(p).enhance(0.5),
    "lit from the side": side_light,
    "grey": lambda p: p.convert("L").convert("RGB"),
    "watermark": watermark,
    "3 px cropped": lambda p: cut(p, 3, 3, 3, 3),
    "6 px cropped at a corner": lambda p: cut(p, 6, 6, 0, 0),
    "turned by 2 degrees": lambda p: p.rotate(2, Image.BICUBIC),
    "smaller": lambda p: p.resize((96, 96), Image.BILINEAR),
    "mirrored": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored and saved again": lambda p: save_again(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 60),
}


def thumbnails(pictures: list[Image.Image]) -> Thumbnails:
    images = np.stack([thumbnail(np.asarray(picture).transpose(2, 0, 1)) for picture in pictures])
    hashes = np.random.default_rng(0).integers(0, 256, (len(pictures), 32), dtype=np.uint8)
    return Thumbnails(images, hashes, {})


@pytest.fixture(scope="module")
def different() -> list[Image.Image]:
    return [face(seed) for seed in range(30)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_the_same_picture(change: str, different: list[Image.Image]) -> None:
    changed = [CHANGES[change](picture) for picture in different[:10]]
    found = find_duplicates(thumbnails(different + changed), show=False)
    assert {tuple(pair) for pair in found.pairs.tolist()} == {(row, 30 + row) for row in range(10)}
    assert found.mirrored.tolist() == [change.startswith("mirrored")] * 10
    assert not found.identical.any()
    np.testing.assert_array_equal(found.groups[:10], np.arange(10))
    np.testing.assert_array_equal(found.groups[30:], np.arange(10))
    assert (found.groups[10:30] == -1).all()


def test_different_faces_are_different(different: list[Image.Image]) -> None:
    found = find_duplicates(thumbnails(different), show=False)
    assert len(found.pairs) == 0
    assert (found.groups == -1).all()
    assert found.members() == []


def test_mirrored_pictures_are_left_out_when_told(different: list[Image.Image]) -> None:
    both = [*different[:5], *(CHANGES["mirrored"](picture) for picture in different[:5])]
    assert len(find_duplicates(thumbnails(both), DuplicateSettings(mirrored=False), show=False).pairs) == 0


def test_plain_pictures_are_not_alike() -> None:
    plain = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (0, 1, 128, 255)]
    assert (find_duplicates(thumbnails(plain), show=False).groups == -1).all()


def test_identical_and_alike_pictures_are_one_group_and_failed_ones_none(
    different: list[Image.Image],
) -> None:
    pictures = [different[0], different[1], different[0], CHANGES["brighter"](different[0]), different[2]]
    found = thumbnails([*pictures, Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64))])
    found.hashes[2] = found.hashes[0]
    found.hashes[5:] = 0
    found.failed = {5: "damaged", 6: "damaged"}
    duplicates = find_duplicates(found, show=False)
    assert duplicates.groups.tolist() == [0, -1, 0, 0, -1, -1, -1]
    assert [rows.tolist() for rows in duplicates.members()] == [[0, 2, 3]]
    assert duplicates.identical.tolist() == [True, False]
    assert duplicates.pairs.tolist() == [[0, 2], [0, 3]]


def test_cells_find_what_comparing_all_finds(monkeypatch: pytest.MonkeyPatch, different: list[Image.Image]) -> None:
    changed = [CHANGES["saved at quality 60"](picture) for picture in different]
    flipped = [CHANGES["mirrored"](picture) for picture in different]
    together = thumbnails(different + changed + flipped)
    whole = find_duplicates(together, show=False)
    assert len(whole.members()) == 30
    monkeypatch.setattr(module, "BLOCK", 16)
    np.testing.assert_array_equal(find_duplicates(together, show=False).pairs, whole.pairs)
    monkeypatch.setattr(module, "LARGE", 10)
    monkeypatch.setattr(module, "CELL", 20)
    np.testing.assert_array_equal(find_duplicates(together, show=False).groups, whole.groups)
    descriptors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    cells = module._by_cell(descriptors, descriptors[:7])
    assert np.bincount(np.concatenate(cells)).tolist() == [module.CELLS_EACH] * 60


def test_no_pictures() -> None:
    found = find_duplicates(
        Thumbnails(np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, 32), np.uint8), {}), show=False
    )
    assert found.groups.shape == (0,)
    assert found.members() == []


def test_similarity_of_a_picture_with_itself_is_one(different: list[Image.Image]) -> None:
    images = thumbnails(different).images
    np.testing.assert_allclose(aligned(images, images, 0.5), 1, atol=1e-3)


def pairs_of(text: str) -> tuple[np.ndarray, np.ndarray]:
    """`0-1 .9, 1-2 .8` as pairs and similarities."""
    parts = [part.split() for part in text.split(", ")]
    pairs = np.array([[int(end) for end in pair.split("-")] for pair, _ in parts], dtype=np.int64)
    return pairs, np.array([float(number) for _, number in parts], dtype=np.float32)


def test_three_in_a_row_are_one_group() -> None:
    assert group_pairs(4, *pairs_of("0-1 .9, 1-2 .8")).tolist() == [0, 0, 0, 3]


def test_a_chain_is_cut_at_its_weakest_tie() -> None:
    # Two tight sets of three, tied by one weak pair: 7 of 15 possible ties.
    chain = "0-1 .95, 0-2 .95, 1-2 .95, 2-3 .76, 3-4 .95, 3-5 .95, 4-5 .95"
    assert group_pairs(6, *pairs_of(chain)).tolist() == [0, 0, 0, 3, 3, 3]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14), st.floats(0.75, 1, width=32)), max_size=40))
def test_groups_hang_together_by_at_least_half_of_their_pairs(ties: list[tuple[int, int, float]]) -> None:
    best = {(min(a, b), max(a, b)): similarity for a, b, similarity in ties if a != b}
    pairs = np.array(list(best), dtype=np.int64).reshape(-1, 2)
    groups = group_pairs(15, pairs, np.array(list(best.values()), dtype=np.float32))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        assert group == rows[0]
        inside = sum(groups[a] == group == groups[b] for a, b in pairs)
        assert 4 * inside >= len(rows) * (len(rows) - 1)


def test_reading_lists_what_cannot_be_read(tmp_path, different: list[Image.Image]) -> None:  # type: ignore[no-untyped-def]
    different[0].save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:3000])
    different[0].save(tmp_path / "c.png")
    faces = [Face(name) for name in ("a.jpg", "b.jpg", "missing.jpg", "c.png")]
    found = read_thumbnails(Manifest.from_faces(faces, tmp_path, Crop("chip")), show=False)
    assert sorted(found.failed) == [1, 2]
    assert "missing.jpg" in found.failed[2]
    assert (found.images[1] == 0).all()
    duplicates: Duplicates = find_duplicates(found, show=False)
    assert duplicates.groups.tolist() == [0, -1, -1, 0]


def test_drawn_persons_who_look_alike_are_no_copies(tmp_path, different: list[Image.Image]) -> None:  # type: ignore[no-untyped-def]
    different[0].save(tmp_path / "a.jpg", quality=95)
    different[0].save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "b.png").read_bytes())
    for source, groups in (("folder", [0, 0, 0]), ("drawn", [-1, 0, 0])):
        faces = [Face(name, source=source) for name in ("a.jpg", "b.png", "c.png")]
        found = find_duplicates(
            read_thumbnails(Manifest.from_faces(faces, tmp_path, Crop("chip")), show=False), show=False
        )
        assert found.groups.tolist() == groups
