"""Asking a model, with one whose answers can be computed by hand."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn

from mien.cli.predict import _print_table
from mien.data.align import TEMPLATES
from mien.data.detect import Detection
from mien.data.manifest import Manifest
from mien.data.prepare import prepare
from mien.data.sources.drawn import DrawnSource
from mien.errors import MienError
from mien.faces import EXPRESSIONS, Crop, Face
from mien.jobs.draw import affect_text, draw_faces
from mien.jobs.engine import Job
from mien.jobs.inputs import expand
from mien.jobs.predict import Model, load, usable
from mien.jobs.prediction import NO_FACE, Prediction
from mien.jobs.workers import Engine

from .conftest import BrightnessModel, plain


class RedSquares:
    """A detector that finds bright red squares, with points if `points`."""

    name = "red"

    def __init__(self, points: bool = True) -> None:
        self.points = points

    def detect(self, image: np.ndarray) -> list[Detection]:
        found = []
        red = (image[0] > 90) & (image[1] < 50)
        columns = np.flatnonzero(red.any(axis=0))
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(columns) else []:
            rows = np.flatnonzero(red[:, run].any(axis=1))
            box = np.array([run[0], rows[0], run[-1] + 1, rows[-1] + 1], dtype=float)
            points = box[:2] + TEMPLATES["chip"] * (box[2:] - box[:2]) - 0.5
            found.append(Detection(box, 0.5, points if self.points else None))
        return found


def photo(*squares: tuple[int, int, int]) -> Image.Image:
    """A grey photo with red squares: left, side, brightness."""
    picture = Image.new("RGB", (400, 120), (128, 128, 128))
    for left, side, red in squares:
        picture.paste(plain(red, size=(side, side)), (left, 10))
    return picture


def test_all_faces_of_a_photo_are_told_from_left_to_right(model: Model) -> None:
    found = model.predict(photo((250, 60, 204), (20, 80, 102)), detector=RedSquares())
    assert [one.face for one in found] == [0, 1]
    assert [one.age for one in found] == [pytest.approx(40, abs=0.5), pytest.approx(80, abs=0.5)]
    assert found[1].box == (250, 10, 310, 70)
    assert found[0].aligned is True
    assert found[0].age_low == pytest.approx(36, abs=0.5)
    assert found[0].gender == "Male"
    assert found[0].probabilities["gender"] == pytest.approx({"Male": 1.0, "Female": 0.0}, abs=0.02)
    assert found[0].race is None  # the model was not trained for it


def test_a_box_without_points_is_marked_unaligned(model: Model) -> None:
    (found,) = model.predict(photo((20, 80, 102)), detector=RedSquares(points=False), landmarker="none")
    assert found.aligned is False
    assert found.age == pytest.approx(40, abs=0.5)


def test_no_face_is_said_and_nothing_invented(model: Model) -> None:
    (found,) = model.predict(photo(), detector=RedSquares())
    assert found.error == NO_FACE
    assert not found.unreadable
    assert (found.face, found.age, found.gender, found.box) == (None, None, None, None)


def test_the_default_detector_finds_the_astronaut(model: Model) -> None:
    (found,) = model.predict(data.astronaut(), landmarker="none")
    assert found.box is not None
    assert found.box[0] < 229 < found.box[2]
    assert found.aligned is False
    (none,) = model.predict(data.coffee())
    assert none.error == NO_FACE


def test_any_mix_of_inputs_gives_the_same_answer(model: Model, tmp_path: Path) -> None:
    picture = photo((20, 80, 153))
    picture.save(tmp_path / "photo.png")
    array = np.asarray(picture)
    inputs = [tmp_path / "photo.png", str(tmp_path / "photo.png"), array, array.transpose(2, 0, 1), picture]
    found = model.predict(inputs, detector=RedSquares(), batch=2)
    assert [one.row for one in found] == [0, 1, 2, 3, 4]
    assert len({one.age for one in found}) == 1
    assert found[0].age == pytest.approx(60, abs=0.5)
    assert found[2].input == "#2"
    assert model.predict(inputs[0], detector=RedSquares())[0].age == found[0].age


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "LA", "1", "I;16"])
def test_pillow_pictures_of_every_mode_are_read(model: Model, mode: str) -> None:
    if mode == "I;16":
        picture = Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16))
        expected = 100 * 40_000 / 65_535
    else:
        picture = plain(255, 255).convert(mode) if mode not in ("L", "LA", "1") else Image.new(mode, (40, 40), 255)
        expected = 100
    (found,) = model.predict(picture, crops=True)
    assert found.age == pytest.approx(expected, abs=1.5)


def test_a_turned_photo_is_turned_back_first(model: Model, tmp_path: Path) -> None:
    upright = photo((20, 80, 153))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (found,) = model.predict(tmp_path / "turned.jpg", detector=RedSquares())
    assert found.box is not None
    np.testing.assert_allclose(found.box, (20, 10, 100, 90), atol=2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((40, 40, 3)), "array of float64; expected uint8"),
        (np.zeros((40, 40, 4), np.uint8), r"shape \(40, 40, 4\); expected \(H, W, 3\)"),
        (np.zeros((2, 2, 3), np.uint8), "smaller than 8 px"),
        (np.zeros(5, np.uint8), r"expected \(H, W, 3\)"),
        ({"a": 1}, "expected a path"),
        (7, "is a int; expected a path"),
    ],
)
def test_an_input_that_is_no_picture_is_refused(model: Model, array: object, message: str) -> None:
    with pytest.raises(MienError, match=message):
        model.predict([array], crops=True)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"\xff\xd8\xff", "is a bytes; expected a path"),
        (io.BytesIO(b"a\nb"), "is a BytesIO; expected a path"),
        ("", "an empty text; expected a path"),
        (["a.jpg", ""], "an empty text; expected a path"),
    ],
)
def test_what_is_no_list_is_named_as_a_whole_and_nothing_is_no_folder(
    model: Model, given: object, message: str
) -> None:
    with pytest.raises(MienError, match=message):
        model.predict(given)  # type: ignore[arg-type]


def test_a_batch_of_nothing_is_refused(model: Model, folder: Path) -> None:
    for batch in (0, -1):
        for crops in (True, False):
            with pytest.raises(MienError, match=f"a batch of {batch}: expected 1 or more"):
                model.predict(folder, crops=crops, batch=batch)


def test_folders_globs_and_paths_keep_their_order(model: Model, folder: Path) -> None:
    found = model.predict(folder, crops=True, batch=4)
    assert [round(one.age or 0) for one in found] == [0, 10, 30, 40, 60, 70, 20, 50, 80]
    assert isinstance(model.estimator, BrightnessModel)
    assert model.estimator.batches == [4, 4, 1]
    found = model.predict([str(folder / "**" / "[25].png"), folder / "7.png"], crops=True)
    assert [round(one.age or 0) for one in found] == [20, 50, 70]


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read, each with a word of the reason."""
    folder.mkdir()
    good = io.BytesIO()
    Image.fromarray(data.astronaut()).save(good, "JPEG")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(good.getvalue()[:4000])
    (folder / "words.png").write_bytes(b"this is no picture at all")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    return {
        "dot.png": "smaller than 8 px",
        "empty.jpg": "empty",
        "huge.png": "more than 100 megapixels",
        "truncated.jpg": "truncated",
        "words.png": "no picture",
        "missing.jpg": "no such file",
    }


def test_bad_pictures_are_listed_and_stop_nothing(model: Model, tmp_path: Path) -> None:
    reasons = bad_files(tmp_path / "bad")
    frames = [plain(red) for red in (51, 255)]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    inputs = [tmp_path / "animated.gif", *(tmp_path / "bad" / name for name in reasons), plain(102)]
    found = model.predict(inputs, crops=True)
    assert len(found) == len(inputs)
    assert found[0].age == pytest.approx(20, abs=0.5)  # the first frame
    assert found[-1].age == pytest.approx(40)
    for one, (name, reason) in zip(found[1:-1], reasons.items(), strict=True):
        assert one.input.endswith(name)
        assert one.unreadable
        assert reason in (one.error or "")
        assert one.age is None


def test_a_file_larger_than_any_picture_is_listed(model: Model, folder: Path) -> None:
    with open(folder / "film.jpg", "wb") as file:
        file.truncate(1 << 40)  # it takes no room on the disk, but would in memory
    told = {Path(one.input).name: one for one in model.predict(folder, crops=True)}
    assert "GB large" in str(told.pop("film.jpg").error)
    assert told
    assert all(one.error is None for one in told.values())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes among files here")
def test_a_pipe_in_a_folder_is_listed_and_not_waited_for(model: Model, folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    for given in (folder, str(folder / "*.*")):
        told = {Path(one.input).name: one.error for one in model.predict(given, crops=True)}
        assert "a pipe" in str(told.pop("pipe.jpg"))
        assert told
        assert not any(told.values())
    # Named by itself it is read, as `mien predict <(...)` wants it.
    there, here = os.pipe()
    os.write(here, (folder / "1.png").read_bytes())
    os.close(here)
    assert model.predict(f"/dev/fd/{there}", crops=True)[0].age == pytest.approx(10, abs=0.5)
    os.close(there)


def test_wide_intervals_make_it_abstain(model: Model) -> None:
    found = model.predict([plain(102), plain(204)], crops=True, max_width=12)
    assert found[0].age == pytest.approx(40)
    assert not found[0].abstained
    assert found[1].age is None
    assert found[1].abstained
    assert found[1].age_high == pytest.approx(88)
    without = Model(BrightnessModel(intervals=False))  # type: ignore[arg-type]
    assert without.predict(plain(102), crops=True)[0].age_low is None
    with pytest.raises(MienError, match="gives no age intervals"):
        without.predict(plain(102), crops=True, max_width=12)
    with pytest.raises(MienError, match="expected a number above 0"):
        model.predict(plain(102), crops=True, max_width=-1)


def test_only_the_wanted_tasks_are_told(model: Model) -> None:
    (found,) = model.predict(plain(102), crops=True, tasks=["gender"])
    assert found.age is None
    assert found.gender == "Male"
    with pytest.raises(MienError, match="unknown task 'race' in the model brightness"):
        model.predict(plain(102), crops=True, tasks=["race"])


def manifest_of(folder: Path, crop: Crop) -> Manifest:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    manifest = Manifest.from_faces([Face(path) for path in paths], folder, crop)
    manifest.save(folder)
    return Manifest.open(folder)


def test_a_manifest_is_crops_and_must_be_those_the_model_learnt(model: Model, folder: Path) -> None:
    manifest = manifest_of(folder, Crop("chip", 0, 40))
    found = model.predict([manifest, folder, folder / "faces.parquet", folder / "3.png"], crops=True)
    assert [one.row for one in found] == list(range(28))
    assert [round(one.age or 0) for one in found][:9] == [0, 10, 30, 40, 60, 70, 20, 50, 80]
    assert round(found[-1].age or 0) == 30
    manifest_of(folder, Crop("photo"))
    with pytest.raises(MienError, match=r"cropped as photo, but chip is wanted.*--align"):
        model.predict(folder)


def test_folders_and_globs_without_a_picture_are_errors(model: Model, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(MienError, match="no picture in this folder"):
        model.predict(tmp_path)
    with pytest.raises(MienError, match="no picture matches"):
        model.predict(str(tmp_path / "*.jpg"))
    with pytest.raises(MienError, match=r"x.parquet is not there"):
        model.predict(tmp_path / "x.parquet")


def test_a_job_holds_what_the_stream_tells_and_refuses_changes(model: Model, folder: Path, tmp_path: Path) -> None:
    items = expand([folder, folder / "gone.png"])
    asking = model.asking(items, crops=True)
    job = asking.job(tmp_path / "job", items, batch=4, show=False)
    expected = [one.to_row() for found in asking.run(items, 4) for one in found]
    names = asking.schema().names
    assert [{name: row[name] for name in names} for row in job.rows()] == [
        {name: row.get(name) for name in names} for row in expected
    ]
    assert pq.read_schema(job.path(0)).names == names
    assert isinstance(model.estimator, BrightnessModel)
    asked = len(model.estimator.batches)
    asking.job(tmp_path / "job", items, batch=4, show=False)
    assert len(model.estimator.batches) == asked  # nothing is done again
    with pytest.raises(MienError, match=r"parameters.tasks was \['gender', 'age'\], is \['age'\]"):
        model.asking(items, crops=True, tasks=["age"]).job(tmp_path / "job", items, batch=4, show=False)
    plain(7).save(folder / "3.png")
    changed = expand([folder, folder / "gone.png"])
    told = model.predict("https://example.org/face.jpg", crops=True)
    assert "mien fetches nothing" in str(told[0].error)
    with pytest.raises(MienError, match="inputs: not the same"):
        asking.job(tmp_path / "job", changed, batch=4, show=False)
    model.estimator.scale.data.fill_(0.3)
    with pytest.raises(MienError, match="model: not the same"):
        asking.job(tmp_path / "job", changed, batch=4, show=False)


def test_items_are_a_sequence(folder: Path) -> None:
    manifest = manifest_of(folder, Crop("chip"))
    items = expand([folder / "0.png", folder / "1.png", manifest, folder / "3.png"])
    names = [item.name for item in items]
    assert len(items) == len(names) == 12
    assert [item.name for item in items[1:4]] == names[1:4]
    assert items[11].name == str(folder / "3.png")
    assert items[2].cropped
    assert not items[1].cropped
    with pytest.raises(IndexError):
        items[12]


class FeelingModel(BrightnessModel):
    """Red is happy, else sad; valence goes with it, arousal against it. Of age it knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict({name: nn.Identity() for name in ("expression", "valence", "arousal")})
        self.states = {}

    def predict(self, images: Tensor, landmarks: Tensor | None = None) -> dict[str, np.ndarray]:
        red = (images[:, 0].float().mean(dim=(1, 2)) / 255).numpy()
        chances = {f"expression_{word}": np.zeros_like(red) for word in EXPRESSIONS}
        chances |= {"expression_Happy": red, "expression_Sad": 1 - red}
        said = np.where(red > 0.5, "Happy", "Sad")
        told = {"expression": said, "expression_p": np.maximum(red, 1 - red)}
        return told | chances | {"valence": 2 * red - 1, "arousal": 1 - 2 * red}


def test_models_asked_together_tell_what_each_learnt(tmp_path: Path) -> None:
    plain(230).save(tmp_path / "red.png")
    age, feelings = BrightnessModel(), FeelingModel()
    together = Model(age, beside=[feelings])  # type: ignore[arg-type, list-item]
    assert together.tasks == ("gender", "age", "expression", "valence", "arousal")
    (red,) = together.predict(str(tmp_path), crops=True)
    (by_age,) = Model(age).predict(str(tmp_path), crops=True)  # type: ignore[arg-type]
    (by_feelings,) = Model(feelings).predict(str(tmp_path), crops=True)  # type: ignore[arg-type]
    assert (red.age, red.age_low, red.gender_p) == (by_age.age, by_age.age_low, by_age.gender_p)
    assert (red.expression, red.valence) == (by_feelings.expression, by_feelings.valence)
    assert together.hash() not in (Model(age).hash(), Model(feelings).hash())  # type: ignore[arg-type]

    with pytest.raises(MienError, match="brightness learnt gender, age, which others tell already"):
        Model(age, beside=[feelings, BrightnessModel()])  # type: ignore[arg-type, list-item]
    feelings.input_size = 64  # the crop is the larger one; estimators shrink what they are shown
    assert Model(age, beside=[feelings]).crop.size == 64  # type: ignore[arg-type, list-item]


class WideModel(BrightnessModel):
    """Tells intervals, and expressions too."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict({name: nn.Identity() for name in ("age", "expression")})

    def predict(self, images: Tensor) -> dict[str, np.ndarray]:
        told = super().predict(images)
        mine = {name: values + 50 for name, values in told.items() if name.startswith("age")}
        return mine | {"expression": np.full(len(images), "Fear")}


def test_of_two_that_learnt_a_task_the_first_tells_all_of_it(tmp_path: Path) -> None:
    first = BrightnessModel(intervals=False)
    model = Model(first, beside=[WideModel()])  # type: ignore[arg-type, list-item]
    columns = model.answers(torch.full((2, 3, 32, 32), 51, dtype=torch.uint8))
    np.testing.assert_allclose(columns["age"], 20, rtol=1e-5)
    assert np.isnan(columns["age_low"]).all()
    assert columns["expression"].tolist() == ["Fear", "Fear"]


def test_expression_valence_and_arousal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model(FeelingModel())  # type: ignore[arg-type]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    plain(230).save(tmp_path / "red.png")
    bad, red = model.predict(str(tmp_path), crops=True)
    assert (red.expression, red.age, red.gender) == ("Happy", None, None)
    assert red.expression_p == pytest.approx(230 / 255, abs=0.01)
    assert red.probabilities["expression"]["Sad"] == pytest.approx(25 / 255, abs=0.01)
    assert red.valence == pytest.approx(2 * 230 / 255 - 1, abs=0.01) == -red.arousal
    assert bad.valence is bad.expression is None
    row = red.to_row()
    assert affect_text(row) == f"valence {red.valence:+.2f}, arousal {red.arousal:+.2f}".replace("-", "−")
    columns = model.asking(expand([str(tmp_path)]), crops=True).schema().names
    assert {"expression", "expression_p", "expression_Contempt", "valence", "arousal"} <= set(columns)
    assert columns[-1] == "error"
    assert set(row) <= set(columns)
    only = model.asking(expand([str(tmp_path)]), crops=True, tasks=["valence"]).schema().names
    assert "arousal" not in only
    assert "expression" not in only
    # What a model was not taught has no column.
    assert "valence" not in Model(BrightnessModel()).asking(expand([str(tmp_path)]), crops=True).schema().names  # type: ignore[arg-type]
    _print_table([{name: one.to_row().get(name) for name in columns} for one in (bad, red)])
    shown = capsys.readouterr().out
    assert "Happy (0.90)" in shown
    assert "+0.80" in shown
    assert draw_faces(np.zeros((3, 60, 60), np.uint8), [row]).any()
    # Enlarged so that letters have room, but a thin strip is not made a wide one of a gigabyte.
    assert draw_faces(np.zeros((3, 60, 100), np.uint8), [row]).shape == (3, 480, 800)
    assert draw_faces(np.zeros((3, 1, 3000), np.uint8), []).shape == (3, 1, 3000)
    assert draw_faces(np.zeros((3, 2, 1000), np.uint8), []).shape == (3, 8, 4000)


@pytest.mark.parametrize("told", [{"expression": "Happy"}, {"valence": 0.5, "arousal": -0.5}])
def test_feelings_are_drawn(told: dict[str, object]) -> None:
    black, face = np.zeros((3, 480, 480), np.uint8), Prediction("x", 0, 0, (40.0, 60.0, 440.0, 460.0), 0.9, True)
    without = draw_faces(black, [face.to_row()])
    for name, value in told.items():
        setattr(face, name, value)
    assert (draw_faces(black, [face.to_row()]) != without).any()


def test_workers_write_the_bytes_of_one_process(tmp_path: Path) -> None:
    """The model, the detector and the items travel to other processes; a picture nobody can read stays listed."""
    prepare(DrawnSource(count=12, size=32, seed=1), tmp_path, tmp_path / "faces", show=False)
    items = expand([tmp_path / "faces", tmp_path / "nothing.png"])
    asking = load("face-mobile", "cpu").asking(items, crops=True)
    asking.job(tmp_path / "one", items, show=False)
    asking.job(tmp_path / "two", items, engine=Engine(workers=1, patience=300), show=False)
    for part in (tmp_path / "one").glob("part-*"):
        assert part.read_bytes() == (tmp_path / "two" / part.name).read_bytes()
    facts = json.loads((tmp_path / "two" / Job.RECORD).read_text())
    kept = {name: facts[name] for name in ("model", "inputs", "parameters")}
    rows = list(Job(tmp_path / "two", "predict", kept, 13).rows())
    assert [row["error"] for row in rows] == [None] * 12 + ["no such file or directory"]


def test_links_and_odd_names_are_read_and_other_kinds_are_listed(model: Model, folder: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    (album / "more").symlink_to(folder)
    (album / "round").symlink_to(album)
    (album / "phone.HEIC").write_bytes(b"ftypheic")
    odd = os.path.join(os.fsencode(album), b"caf\xe9.png")
    shutil.copy(next(folder.rglob("*.png")), odd)
    found = model.predict(album, crops=True)
    assert len(found) == 11
    errors = {one.input: one.error for one in found if one.error}
    assert list(errors) == [str(album / "phone.HEIC")]
    assert "convert it" in errors[str(album / "phone.HEIC")]
    # Named by itself, a file is tried, whatever its ending.
    named = shutil.copy(next(folder.rglob("*.png")), tmp_path / "named.heic")
    assert model.predict(named, crops=True)[0].error is None
    assert any(one.input.endswith("caf\\udce9.png") for one in found)


def test_under_torchrun_cuda_is_this_ranks_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(MienError, match=r"device 'abacus' is not usable here \(.*abacus.*\); take auto or cpu"):
        usable("abacus")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    assert [usable(name) for name in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
