import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.data.loading import FaceLoader
from mien.data.manifest import Manifest
from mien.data.pictures import decode, encode, resize
from mien.data.sampling import Sampling
from mien.data.transforms import AugmentSettings
from mien.errors import MienError
from mien.faces import Crop, Face, FaceBatch

COUNT, SIZE = 23, 32
BAD = 11
FACES = AugmentSettings.model_validate("faces")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """23 pictures with landmarks, the twelfth of which is no picture."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    made = []
    for row in range(COUNT):
        name = f"{row}.{'jpg' if row % 2 else 'png'}"
        image = resize(rng.integers(0, 256, (3, 7, 7), dtype=np.uint8), 40 + row)
        (root / name).write_bytes(encode(image, "JPEG" if row % 2 else "PNG"))
        points = rng.uniform(0, 40, (68, 2))
        made.append(Face(path=name, age=(row, row), landmarks=points))
    (root / f"{BAD}.jpg").write_bytes(b"\xff\xd8\xff no picture")
    sizes = [(40 + row, 40 + row) for row in range(COUNT)]
    return Manifest.from_faces(made, root, Crop("photo"), sizes=sizes)


def loader(faces: Manifest, batch: int = 4, **options: object) -> FaceLoader:
    labels = {"age": torch.from_numpy(faces.numbers("age_low"))}
    return FaceLoader(faces, labels, SIZE, batch, **options)  # type: ignore[arg-type]


def by_row(batches: list[FaceBatch]) -> dict[int, Tensor]:
    """Each face as it was shown first."""
    shown = [(int(row), image) for batch in batches for row, image in zip(batch.index, batch.images, strict=True)]
    return dict(reversed(shown))


def assert_same(first: list[FaceBatch], second: list[FaceBatch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels["age"], other.labels["age"])
        assert one.landmarks is not None
        assert other.landmarks is not None
        assert torch.equal(one.landmarks, other.landmarks)


def test_evaluation_reads_every_face_in_order(faces: Manifest) -> None:
    reader = loader(faces)
    assert len(reader) == 6
    batches = list(reader.epoch())
    read = [int(row) for batch in batches for row in batch.index]
    assert read == [row for row in range(COUNT) if row != BAD]
    assert list(reader.rejected) == [BAD]
    assert f"{BAD}.jpg" in reader.rejected[BAD]
    for row, image in by_row(batches).items():
        stored = decode((faces.root / faces.strings("path")[row]).read_bytes())
        np.testing.assert_array_equal(image.numpy(), resize(stored, SIZE))


def test_a_batch_is_uint8_channels_first_with_labels_of_its_rows(faces: Manifest) -> None:
    batch = next(loader(faces, augment=FACES).epoch())
    assert batch.images.dtype == torch.uint8
    assert batch.images.shape == (4, 3, SIZE, SIZE)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.index.dtype == torch.int64
    assert torch.equal(batch.labels["age"], batch.index.float())


def test_landmarks_follow_the_resize(faces: Manifest) -> None:
    batch = next(loader(faces).epoch())
    assert batch.landmarks is not None
    expected = (faces.landmarks()[2] + 0.5) * SIZE / 42 - 0.5
    np.testing.assert_allclose(batch.landmarks[2].numpy(), expected, rtol=1e-5)
    # Augmentation without operations is a resize too.
    still = AugmentSettings()
    batch = next(batch for batch in loader(faces, augment=still).epoch() if 2 in batch.index)
    assert batch.landmarks is not None
    np.testing.assert_allclose(batch.landmarks[batch.index == 2][0].numpy(), expected, atol=1e-4)


def test_landmarks_follow_a_picture_that_is_decoded_smaller(tmp_path: Path) -> None:
    image = resize(np.random.default_rng(0).integers(0, 256, (3, 5, 5), dtype=np.uint8), 512)
    (tmp_path / "large.jpg").write_bytes(encode(image))
    points = np.full((68, 2), 255.5)
    face = Face(path="large.jpg", landmarks=points)
    one = Manifest.from_faces([face], tmp_path, Crop("photo"), sizes=[(512, 512)])
    batch = next(FaceLoader(one, {}, SIZE, 1).epoch())
    assert batch.landmarks is not None
    np.testing.assert_allclose(batch.landmarks[0].numpy(), (SIZE - 1) / 2, atol=1e-4)


def test_a_face_looks_the_same_in_any_batch_order_and_worker(faces: Manifest) -> None:
    plain = by_row(list(loader(faces, batch=23, augment=FACES, seed=4).epoch(3)))
    small = by_row(list(loader(faces, batch=1, augment=FACES, seed=4).epoch(3)))
    uneven = by_row(list(loader(faces, batch=5, augment=FACES, seed=4, sampling=Sampling(by="age")).epoch(3)))
    for other in (small, uneven):
        shared = plain.keys() & other.keys()
        assert len(shared) > 10
        assert all(torch.equal(plain[row], other[row]) for row in shared)
    later = by_row(list(loader(faces, batch=23, augment=FACES, seed=4).epoch(4)))
    assert sum(torch.equal(plain[row], later[row]) for row in plain.keys() & later.keys()) <= 2


def test_workers_read_what_one_process_reads(faces: Manifest) -> None:
    alone = loader(faces, augment=FACES, seed=1)
    helped = loader(faces, augment=FACES, seed=1, workers=2)
    for epoch in (0, 1):
        assert_same(list(alone.epoch(epoch)), list(helped.epoch(epoch)))
        assert alone.rejected == helped.rejected
    # Workers live on after an epoch that was left half-way, and go on anywhere.
    left = helped.epoch(2)
    next(left)
    assert_same(list(alone.epoch(5, start=2)), list(helped.epoch(5, start=2)))
    left.close()


def test_an_epoch_resumes_where_it_was_left(faces: Manifest) -> None:
    whole = list(loader(faces, augment=FACES, sampling=Sampling(by="age")).epoch(7))
    for start in range(len(whole) + 1):
        again = loader(faces, augment=FACES, sampling=Sampling(by="age"))
        assert_same(whole[start:], list(again.epoch(7, start=start)))


def test_reading_leaves_torchs_random_numbers_alone(faces: Manifest) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(loader(faces, augment=FACES).epoch())
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("by", ["uniform", "age"])
def test_two_processes_read_what_one_does(faces: Manifest, by: str) -> None:
    sampling = Sampling.model_validate({"by": by})
    alone = list(loader(faces, batch=6, augment=FACES, sampling=sampling).epoch(2))
    pair = [
        list(loader(faces, batch=3, augment=FACES, sampling=sampling, rank=rank, world=2).epoch(2)) for rank in (0, 1)
    ]
    assert len(alone) == len(pair[0]) == len(pair[1]) == 3
    for step, batch in enumerate(alone):
        assert torch.equal(batch.index, torch.cat([pair[0][step].index, pair[1][step].index]))
        assert torch.equal(batch.images, torch.cat([pair[0][step].images, pair[1][step].images]))


def test_training_batches_are_full_though_a_picture_is_bad(faces: Manifest) -> None:
    reader = loader(faces, augment=FACES)
    for epoch in range(4):
        batches = list(reader.epoch(epoch))
        assert [len(batch) for batch in batches] == [4] * 5
        assert len(reader) == 5
        assert BAD not in torch.cat([batch.index for batch in batches])
    assert list(reader.rejected) == [BAD]


def test_a_set_smaller_than_a_batch_is_one_batch(faces: Manifest) -> None:
    reader = loader(faces, batch=64, augment=FACES)
    assert len(reader) == 1
    (batch,) = reader.epoch()
    assert len(batch) == COUNT


def test_an_evaluation_batch_of_bad_pictures_is_left_out(faces: Manifest) -> None:
    reader = loader(faces.take(np.array([0, BAD, BAD, 1])), batch=1)
    assert [int(batch.index) for batch in reader.epoch()] == [0, 3]
    assert sorted(reader.rejected) == [1, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_training_without_any_readable_picture_says_so(faces: Manifest, workers: int) -> None:
    reader = loader(faces.take(np.array([BAD, BAD])), batch=2, augment=FACES, workers=workers)
    with pytest.raises(MienError, match=f"{BAD}.jpg") as caught:
        list(reader.epoch())
    assert "Traceback" not in str(caught.value)


def test_more_processes_than_faces_is_an_error(faces: Manifest) -> None:
    with pytest.raises(MienError, match="cannot be shared by 4 processes"):
        loader(faces.take(np.arange(3)), augment=FACES, rank=3, world=4)


def test_labels_of_another_length_are_refused(faces: Manifest) -> None:
    with pytest.raises(ValueError, match="age: 5 for 23"):
        FaceLoader(faces, {"age": torch.zeros(5)}, SIZE, 4)


def test_the_reader_travels_to_workers_that_start_from_nothing(faces: Manifest) -> None:
    reader = loader(faces, augment=FACES)._loader.dataset
    there = pickle.loads(pickle.dumps(reader))
    step = (2, np.array([3, BAD, 4]), np.array([0, 0, 1]))
    assert torch.equal(there[step].images, reader[step].images)


def test_a_face_shown_again_in_an_epoch_looks_otherwise(faces: Manifest) -> None:
    rare = Manifest.from_faces(
        [
            Face(path=f"{row}.{'jpg' if row % 2 else 'png'}", age=(80, 80) if row == 0 else (25, 25))
            for row in range(10)
        ],
        faces.root,
        Crop("photo"),
        sizes=[(40 + row, 40 + row) for row in range(10)],
    )
    reader = loader(rare, batch=5, augment=FACES, sampling=Sampling(by="age"))
    batches = list(reader.epoch())
    images = torch.cat([batch.images for batch in batches])
    shown = images[torch.cat([batch.index for batch in batches]) == 0]
    assert len(shown) == 5
    assert len({image.numpy().tobytes() for image in shown}) == 5
    assert torch.equal(torch.cat([batch.images for batch in reader.epoch(start=1)]), images[5:])


def test_batches_carry_the_weights_of_the_sampling(faces: Manifest) -> None:
    sampling = Sampling(weights="inverse")
    batch = next(loader(faces, sampling=sampling).epoch())
    assert batch.weights is not None
    np.testing.assert_allclose(batch.weights, sampling.loss_weights(faces)[batch.index.numpy()], rtol=1e-6)
