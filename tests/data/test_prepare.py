"""From a source to a manifest: nothing dropped silently, nothing half written."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien.data.prepare
from mien.data.align import crop_matrix, five_points, move_points, require_view
from mien.data.archives import open_tree
from mien.data.drawing.face import draw
from mien.data.inspection import inspect_manifest
from mien.data.manifest import Manifest
from mien.data.matching import tone
from mien.data.pictures import decode, encode
from mien.data.prepare import prepare
from mien.data.quality import QualityFilter
from mien.data.sources import SOURCES
from mien.data.sources.affect import Affect
from mien.data.sources.drawn import DrawnSource, sample
from mien.data.sources.fairface import FairFace
from mien.data.sources.ferplus import FERPlus
from mien.data.sources.fgnet import FGNet
from mien.data.sources.folder import FolderSource
from mien.data.sources.utkface import UTKFace
from mien.errors import MienError
from mien.faces import SPLITS, Crop

DATE = "20170116001830007"


def utk(picture, count: int = 12) -> dict[str, bytes]:
    names = [f"UTKFace/{10 + number}_{number % 2}_{number % 5}_{DATE}{number}.jpg.chip.jpg" for number in range(count)]
    return {name: picture(number) for number, name in enumerate(names)}


def listed(path: Path) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8") as lines:
        return {row["path"]: row["reason"] for row in csv.DictReader(lines)}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_pictures_are_read_once_and_stay_where_they_are(pack, picture, tmp_path, kind):
    files = utk(picture)
    path = pack(kind, files)
    prepared = prepare(UTKFace(), path, tmp_path / "out", show=False)
    manifest = Manifest.open(tmp_path / "out")
    assert sorted(manifest.strings("path").tolist()) == sorted(files)
    assert manifest.crop == Crop("chip", 0.0, 40)
    assert manifest.hash == prepared.manifest.hash
    assert manifest.table["width"].to_pylist() == manifest.table["height"].to_pylist() == [40] * 12
    pictures = manifest.pictures()
    for row in range(len(manifest)):
        face = manifest.face(row)
        data = pictures.read(face.path, face.archive)
        assert data == files[face.path]
        assert manifest.strings("sha256")[row] == hashlib.sha256(data).digest()
    # A tar.gz is unpacked for each look at a picture, so its pictures are written beside the manifest.
    made = ["pictures.zip"] if kind == "tar.gz" else []
    assert sorted(os.listdir(tmp_path / "out")) == ["faces.parquet", *made, "rejected.csv"]
    assert prepared.facts()["labels"] == {"age": 12, "gender": 12, "race": 12}


def test_what_cannot_be_read_is_listed_with_its_reason(pack, picture, tmp_path):
    files = utk(picture)
    bad = {
        f"UTKFace/1_0_0_{DATE}.jpg": b"",
        f"UTKFace/2_0_0_{DATE}.jpg": picture(50)[:200],
        f"UTKFace/3_0_0_{DATE}.png": picture(51, "PNG", 1, 1),
        f"UTKFace/4_0_0_{DATE}.jpg": b"<html>404</html>",
        f"UTKFace/200_0_0_{DATE}.jpg": picture(52),
        "UTKFace/me.jpg": picture(53),
    }
    prepared = prepare(UTKFace(), pack("zip", {**files, **bad, "../evil_0_0.jpg": b""}), tmp_path / "out", show=False)
    assert len(prepared.manifest) == len(files)
    reasons = listed(tmp_path / "out" / "rejected.csv")
    assert set(reasons) == {*bad, "../evil_0_0.jpg"}
    assert reasons[f"UTKFace/1_0_0_{DATE}.jpg"] == "the file is empty"
    assert "smaller than 8 px" in reasons[f"UTKFace/3_0_0_{DATE}.png"]
    assert "no picture" in reasons[f"UTKFace/4_0_0_{DATE}.jpg"]
    assert "outside the archive" in reasons["../evil_0_0.jpg"]
    assert prepared.facts()["rejected"] == 7


def test_splits_keep_persons_and_copies_together(pack, picture, tmp_path):
    names = {f"{number}.jpg": picture(number) for number in range(40)}
    names |= {f"copy{number}.jpg": picture(number) for number in range(5)}
    rows = [f"{name},{10 + number},{'ann' if 20 <= number < 26 else ''}" for number, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("path,age,person\n" + "\n".join(rows))
    path = pack("folder", names)
    source = FolderSource(tmp_path / "labels.csv", "chip")
    manifest = prepare(source, path, tmp_path / "out", show=False).manifest
    place = dict(zip(manifest.strings("path"), manifest.codes("split"), strict=True))
    group = dict(zip(manifest.strings("path"), manifest.groups(), strict=True))
    for number in range(5):
        assert group[f"{number}.jpg"] == group[f"copy{number}.jpg"]
        assert place[f"{number}.jpg"] == place[f"copy{number}.jpg"]
    assert len({group[f"{number}.jpg"] for number in range(20, 26)}) == 1
    assert len({place[f"{number}.jpg"] for number in range(20, 26)}) == 1
    assert len(set(manifest.groups().tolist())) == 40 - 5
    assert (manifest.codes("split") >= 0).all()
    again = prepare(source, path, tmp_path / "again", show=False).manifest
    assert again.hash == manifest.hash
    other = prepare(source, path, tmp_path / "other", seed=1, show=False).manifest
    assert (other.codes("split") != manifest.codes("split")).any()


def test_given_splits(pack, picture, tmp_path):
    files = utk(picture, 4)
    first, second, third, fourth = (name.split("/")[1] for name in files)
    (tmp_path / "splits.csv").write_text(
        f"file,split,duplicate_group\n{first},train,7\n{second.upper()},train,7\n{third},val,\ngone.jpg,test,\n"
    )
    path = pack("zip", files)
    prepared = prepare(UTKFace(), path, tmp_path / "out", splits=tmp_path / "splits.csv", show=False)
    manifest = Manifest.open(tmp_path / "out")
    assert [SPLITS[code] if code >= 0 else None for code in manifest.codes("split")] == [
        "train",
        "train",
        "val",
        None,
    ]
    groups = manifest.groups()
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 3
    assert listed(tmp_path / "out" / "unmatched.csv") == {
        "gone.jpg": "splits.csv line 5: no such face",
        f"UTKFace/{fourth}": "splits.csv does not name it: it is in no split",
    }
    assert prepared.facts()["splits"] == {"train": 2, "select": 0, "val": 1, "test": 0, "none": 1}
    prepare(UTKFace(), path, tmp_path / "out", show=False)
    assert not (tmp_path / "out" / "unmatched.csv").exists()
    for text, message in (
        (
            "file,split\na.jpg,training\n",
            r"unknown split 'training' in splits\.csv line 2; did you mean 'train'",
        ),
        (
            f"file,split,duplicate_group\n{first},train,x\n",
            "line 2, column duplicate_group: 'x' is no whole number",
        ),
        (f"file,split,duplicate_group\n{first},train,inf\n", "'inf' is no whole number"),
        (f"file,split,duplicate_group\n{first},train,1.2\n", "'1.2' is no whole number"),
        (
            f"file,split\n{first},train\n{first},test\n",
            r"splits\.csv line 3: .* is in test here, group -1, and in train, group -1, further up",
        ),
        ("file,split\nb.jpg,train\n", r"names none of the 4 faces; its first is 'b\.jpg'"),
        ("name,split\n", "has no column file"),
    ):
        (tmp_path / "splits.csv").write_text(text)
        with pytest.raises(MienError, match=message):
            prepare(UTKFace(), path, tmp_path / "out", splits=tmp_path / "splits.csv", show=False)


def test_corrections(pack, picture, tmp_path):
    files = utk(picture, 3)
    first, second, third = files
    (tmp_path / "c.csv").write_text(
        f"path,column,value\n{first},age,42\n{first},gender,female\n{second.split('/')[1]},age_high,30\n"
        f"{third},race,\ngone.jpg,age,1\n"
    )
    path = pack("folder", files)
    prepared = prepare(UTKFace(), path, tmp_path / "out", corrections=tmp_path / "c.csv", show=False)
    manifest = prepared.manifest
    assert manifest.face(0).age == (42, 42)
    assert manifest.face(0).gender == "Female"
    assert manifest.face(1).age == (11, 30)
    assert manifest.face(2).race is None
    assert manifest.strings("age_from").tolist() == ["corrected", "corrected", "given"]
    assert manifest.strings("gender_from").tolist() == ["corrected", "given", "given"]
    assert manifest.strings("race_from").tolist() == ["given", "given", None]
    assert [item.path for item in prepared.unmatched] == ["gone.jpg"]
    # Either end of an interval may be named first, also where it moves past the other one.
    for rows in ("age_low,30 age_high,40", "age_high,9 age_low,5"):
        lines = "".join(f"{second},{row}\n" for row in rows.split())
        (tmp_path / "c.csv").write_text(f"path,column,value\n{lines}")
        moved = prepare(UTKFace(), path, tmp_path / "out", corrections=tmp_path / "c.csv", show=False).manifest
        assert moved.face(1).age == ((30, 40) if "30" in rows else (5, 9))
    for line, message in (
        (f"{first},age_low,80", r"c\.csv line 2: .*age \(80\.0, 1\d\.0\) is not an interval"),
        (f"{first},age,200", r"c\.csv line 2: .*age \(200\.0, 200\.0\)"),
        (f"{first},age,old", r"c\.csv line 2: column age: 'old' is no number"),
        (f"{first},age,\n{first},age_high,30", r"c\.csv line 3: one end of the age is missing"),
        (f"{first},gender,Man", r"c\.csv line 2: .*gender 'Man'"),
        (f"{first},sex,Male", r"unknown column 'sex' in c\.csv line 2"),
    ):
        (tmp_path / "c.csv").write_text(f"path,column,value\n{line}\n")
        with pytest.raises(MienError, match=message):
            prepare(UTKFace(), path, tmp_path / "out", corrections=tmp_path / "c.csv", show=False)


@pytest.fixture
def fgnet(pack, tmp_path) -> Path:
    """Drawn faces on large photos, with FG-NET's names and the points that its reader takes apart again."""
    files = {}
    for number, made in enumerate(DrawnSource(count=6, size=120).faces()):
        photo = np.full((3, 200, 260), 90, dtype=np.uint8)
        photo[:, 40:160, 70:190] = made.image
        files[f"FGNET/images/00{number + 1}A0{number}.JPG"] = encode(photo)
        lines = "\n".join(f"{x} {y}" for x, y in fgnet_points(made.face.landmarks + np.array([70, 40])))
        files[f"FGNET/points/00{number + 1}a0{number}.pts"] = f"version: 1\nn_points: 68\n{{\n{lines}\n}}".encode()
    return pack("zip", files)


def fgnet_points(ibug: np.ndarray) -> np.ndarray:
    """Points of FG-NET's scheme whose eyes, nose and mouth are those of iBUG's 68."""
    points = np.tile(ibug.mean(axis=0), (68, 1))
    points[:15] = ibug[1:16]
    for first, eye in ((27, 36), (32, 42)):
        left, right = ibug[eye], ibug[eye + 3]
        corners = (left, right) if first == 27 else (right, left)
        points[first], points[first + 2] = corners
        points[first + 1] = ibug[eye + 1 : eye + 3].mean(axis=0)
        points[first + 3] = ibug[eye + 4 : eye + 6].mean(axis=0)
    points[48:60], points[67] = ibug[48:60], ibug[30]
    return points


def test_photos_with_points_are_cut_to_the_canonical_crop(fgnet, tmp_path):
    manifest = prepare(FGNet(), fgnet, tmp_path / "out", size=96, show=False).manifest
    assert manifest.crop == Crop("chip", 0.0, 96)
    assert set(manifest.strings("archive")) == {"pictures.zip"}
    eyes = manifest.landmarks()[:, 36:48].mean(axis=1) / 96
    np.testing.assert_allclose(eyes, np.tile([0.5, 0.295], (6, 1)), atol=0.03)
    mouths = manifest.landmarks()[:, [48, 54]].mean(axis=1) / 96
    np.testing.assert_allclose(mouths, np.tile([0.5, 0.68], (6, 1)), atol=0.06)
    moved = tmp_path / "moved"
    (tmp_path / "out").rename(moved)  # pictures lie beside the manifest: the folder is whole in itself
    opened = Manifest.open(moved)
    image = opened.pictures().image(opened.face(0).path, opened.face(0).archive)
    assert image.shape == (3, 96, 96)
    plain = prepare(FGNet(), fgnet, tmp_path / "plain", align=False, show=False).manifest
    assert plain.crop == Crop("photo")
    assert set(plain.strings("archive")) == {"packed.zip"}
    assert not (tmp_path / "plain" / "pictures.zip").exists()


def test_a_photo_without_points_is_rejected_when_others_are_cut(fgnet, picture, tmp_path):
    with zipfile.ZipFile(fgnet, "a") as archive:
        archive.writestr("FGNET/images/099A50.JPG", picture(3))
    prepared = prepare(FGNet(), fgnet, tmp_path / "out", show=False)
    assert len(prepared.manifest) == 6
    assert listed(tmp_path / "out" / "rejected.csv") == {"FGNET/images/099A50.JPG": "no points to align it by"}


def test_drawn_faces_are_written_beside_the_manifest(tmp_path):
    prepared = prepare(DrawnSource(count=30, size=48, seed=3), ".", tmp_path / "out", show=False)
    manifest = Manifest.open(tmp_path / "out")
    assert len(manifest) == 30
    assert manifest.crop == Crop("chip", 0.0, 48)
    again = prepare(DrawnSource(count=30, size=48, seed=3), ".", tmp_path / "again", show=False)
    assert again.manifest.hash == prepared.manifest.hash
    zips = [(tmp_path / name / "pictures.zip").read_bytes() for name in ("out", "again")]
    assert zips[0] == zips[1]
    persons, splits = manifest.strings("person"), manifest.codes("split")
    assert all(len(set(splits[persons == person])) == 1 for person in set(persons))
    for row, made in zip(range(3), DrawnSource(count=30, size=48, seed=3).faces(), strict=False):
        face = manifest.face(row)
        image = manifest.pictures().image(face.path, face.archive)
        assert np.abs(image.astype(int) - made.image).mean() < 3  # JPEG of quality 95
        np.testing.assert_allclose(face.landmarks, made.face.landmarks, rtol=1e-5)


def test_nothing_to_prepare_is_said(pack, picture, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MienError, match=r"no face of source utkface in .*empty, expected 29_1_1_.*; it is empty"):
        prepare(UTKFace(), tmp_path / "empty", out, show=False)
    with pytest.raises(MienError, match="none is not there; give a folder, a zip or a tar"):
        prepare(UTKFace(), tmp_path / "none", out, show=False)
    path = pack("zip", utk(picture, 3))
    with pytest.raises(MienError, match=r"no face of source fgnet .*; did you mean source utkface\?"):
        prepare(FGNet(), path, out, show=False)
    with pytest.raises(MienError, match=r"no face of source fairface .*; did you mean source utkface\?"):
        prepare(FairFace(), path, out, show=False)
    with pytest.raises(MienError, match="has points to align it by"):
        prepare(UTKFace(), path, out, align=True, show=False)
    for name in utk(picture, 3):
        (tmp_path / "bad" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / name).write_bytes(b"x")
    with pytest.raises(MienError, match=r"none of the 3 pictures in .* can be used; .*: no picture"):
        prepare(UTKFace(), tmp_path / "bad", out, show=False)
    assert not (out / "faces.parquet").exists()


@pytest.mark.parametrize(
    ("name", "drawn", "calls"),
    # Drawn faces: pictures.zip and its folder, rejected.csv, faces.parquet. Given ones: the last two.
    [("fsync", True, 4), ("fsync", False, 2), ("replace", True, 2), ("replace", False, 1)],
)
def test_a_full_disk_leaves_what_was_there(pack, picture, tmp_path, monkeypatch, name, drawn, calls):
    out = tmp_path / "out"
    prepare(DrawnSource(count=4, size=32), ".", out, show=False)
    before = {file: (out / file).read_bytes() for file in os.listdir(out)}
    source = DrawnSource(count=5, size=32, seed=1) if drawn else UTKFace()
    path = pack("folder", utk(picture))
    real, left = getattr(os, name), 0

    def full(*arguments: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(os, name, full)
    for before_full in range(calls):
        left = before_full
        if name == "fsync" and before_full == 1 and drawn:
            continue  # folders are flushed where that is possible; that it fails is no error
        with pytest.raises(OSError, match="No space left"):
            prepare(source, path, out, show=False)
        assert {file: (out / file).read_bytes() for file in os.listdir(out)} == before
    left = 1000
    assert len(prepare(source, path, out, show=False).manifest) == (5 if drawn else 12)


def test_an_interrupted_run_leaves_no_half_manifest(tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mien.data.splits.assign_splits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(DrawnSource(count=4, size=32), ".", tmp_path / "out", show=False)
    assert os.listdir(tmp_path / "out") == []


def test_a_second_run_replaces_manifest_and_pictures(pack, picture, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(out / "pictures-mine.zip", "w") as mine:
        mine.writestr("a.txt", "the user's own")
    for count in (4, 6, 8):
        prepare(DrawnSource(count=count, size=32), ".", out, show=False)
        manifest = Manifest.open(out)
        assert len(manifest) == count
        face = manifest.face(count - 1)
        assert manifest.pictures().image(face.path, face.archive).shape == (3, 32, 32)
        assert len([name for name in os.listdir(out) if name.endswith(".zip")]) == 2
    assert "pictures-mine.zip" in os.listdir(out)
    (out / "pictures-unpacked.zip").mkdir()
    prepare(UTKFace(), pack("folder", utk(picture)), out, show=False)
    mine = ["pictures-mine.zip", "pictures-unpacked.zip"]
    assert sorted(name for name in os.listdir(out) if name.endswith(".zip")) == mine


def test_pictures_that_a_killed_prepare_was_writing_are_removed_by_the_next(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("pictures.zip", "pictures-2.zip"):
        (out / f".{name[:-4]}-0123abcd.zip").write_bytes(b"half of them")
        prepare(DrawnSource(count=4, size=32), ".", out, show=False)
        assert sorted(os.listdir(out)) == sorted(["faces.parquet", name, "rejected.csv"]), name


def test_of_two_that_write_one_folder_the_manifest_shows_its_own_pictures(tmp_path, monkeypatch):
    out, inner = tmp_path / "out", mien.data.prepare._manifest

    def run(seed):
        return prepare(DrawnSource(count=4, seed=seed, size=32), ".", out, show=False)

    def overtaken(*arguments):  # its pictures are written, when one that began at the same time ends
        monkeypatch.setattr("mien.data.prepare._manifest", inner)
        with monkeypatch.context() as same:
            same.setattr("mien.data.prepare._free_name", lambda _: "pictures.zip")
            run(2)
        return inner(*arguments)

    monkeypatch.setattr("mien.data.prepare._manifest", overtaken)
    with pytest.raises(MienError, match="another mien prepare has written there"):
        run(1)
    manifest = Manifest.open(out)
    for path, archive, known in zip(*map(manifest.strings, ("path", "archive", "sha256")), strict=True):
        assert hashlib.sha256(manifest.pictures().read(path, archive)).digest() == known


def test_pictures_that_an_earlier_run_wrote_may_be_the_source(tmp_path):
    out = tmp_path / "out"
    prepare(DrawnSource(count=4, size=32), ".", out, show=False)
    prepare(FolderSource(crop="chip"), out / "pictures.zip", out, show=False)
    manifest = Manifest.open(out)
    assert manifest.pictures().image("000003.png", "pictures.zip").shape == (3, 32, 32)


def test_every_source_says_what_a_user_must_know():
    for name, source in SOURCES.items():
        assert source.name == name
        for text in (source.title, source.terms, source.where, source.layout):
            assert text
            assert "\n" not in text


def test_members_keep_their_names_in_the_tree(pack, picture, tmp_path):
    """An archive made on Windows: the manifest names members with `/`, and finds them."""
    path = pack("zip", {f"UTK\\{10 + number}_0_0_{DATE}.jpg": picture(number) for number in range(5)})
    manifest = prepare(UTKFace(), path, tmp_path / "out", show=False).manifest
    assert manifest.strings("path")[0] == f"UTK/10_0_0_{DATE}.jpg"
    assert open_tree(path).names() == manifest.strings("path").tolist()
    assert manifest.pictures().image(manifest.strings("path")[0], "packed.zip").shape == (3, 40, 40)


def affect(number: int, picture, points: np.ndarray | None, side: int = 96) -> dict[str, bytes]:
    files = {f"images/{number}.jpg": picture(number, width=side, height=side), f"annotations/{number}_exp.txt": b"1"}
    files |= {f"annotations/{number}_{kind}.txt": b"0.5" for kind in ("val", "aro")}
    if points is not None:
        files[f"annotations/{number}_lnd.txt"] = " ".join(f"{value:.4f}" for value in points.ravel()).encode()
    return files


def test_crops_of_a_data_set_are_brought_to_the_canonical_one(pack, picture, tmp_path):
    """By points where there are some, else by what is known of the set; points that cannot be right are listed."""
    _, points = draw(sample(0, 0), 96)
    turn = np.array([[0.9, 0.15, 4], [-0.15, 0.9, 16]])
    files = affect(1, picture, move_points(points, turn)) | affect(2, picture, None)
    files |= affect(3, picture, points + 500) | affect(4, picture, np.full((68, 2), 7.0))
    path = pack("zip", files)
    prepared = prepare(Affect(), path, tmp_path / "out", size=84, show=False)
    manifest = Manifest.open(tmp_path / "out")
    assert manifest.crop == Crop("chip", 0.0, 84)
    assert manifest.strings("path").tolist() == ["images/1.jpg", "images/2.jpg"]
    five = five_points(manifest.landmarks()[0]) / 84
    expected = move_points(five_points(points), crop_matrix(five_points(points), Crop("chip", 0.0, 84))) / 84
    np.testing.assert_allclose(five, expected, atol=1e-4)
    assert np.isnan(manifest.landmarks()[1]).all()
    assert manifest.numbers("valence").tolist() == [0.5, 0.5]
    assert manifest.codes("expression").tolist() == [1, 1]
    pixels = manifest.pictures().image("images/2.jpg", "pictures.zip").astype(int)
    whole = decode(files["images/2.jpg"]).astype(int)
    assert np.abs(pixels - whole[:, 12:96, 6:90]).mean() < 2  # the window, 84 px of 96, written once more as JPEG
    reasons = {item.path: item.reason for item in prepared.rejected}
    assert reasons == {
        "images/2.jpg": "no annotation _lnd.npy: no landmarks",
        "images/3.jpg": "cut by its points, most of the face would lie outside the picture (100% of it)",
        "images/4.jpg": "the points of a face are all one, or not finite: nothing to align by",
    }


def test_a_crop_of_its_own_stays_when_told(pack, picture, tmp_path):
    _, points = draw(sample(0, 0), 96)
    path = pack("zip", affect(1, picture, points + 40) | affect(2, picture, points))
    manifest = prepare(Affect(), path, tmp_path / "out", align=False, show=False).manifest
    assert manifest.crop == Crop("affectnet", 0.0, 96)
    np.testing.assert_allclose(manifest.landmarks(), [points + 40, points], atol=1e-3)  # outside or not
    with pytest.raises(MienError, match=r"affectnet, but chip is wanted; cut them with: mien prepare .* --align"):
        require_view(manifest.crop, Crop("chip"), "the manifest")


def test_expressions_are_spread_over_the_splits_where_no_age_is_known(pack, picture, tmp_path):
    lines = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    files = {}
    for number in range(40):
        files[f"FER2013Train/fer{number:07d}.png"] = picture(number, "PNG", 48, 48)
        votes = [10 * (number % 4 == 0), 10 * (number % 4 != 0), *[0] * 8]
        lines.append(f"Training,fer{number:07d}.png,{','.join(map(str, votes))}")
    files["fer2013new.csv"] = "\n".join(lines).encode()
    manifest = prepare(FERPlus(), pack("zip", files), tmp_path / "out", show=False).manifest
    assert manifest.crop == Crop("chip", 0.0, 42)
    neutral = manifest.codes("expression") == 0
    for code in (0, 2, 3):  # train, val, test; a tenth of select's faces would be none
        of_split = manifest.codes("split") == code
        assert abs(neutral[of_split].mean() - 0.25) < 0.13
    assert manifest.votes()[:, 0].tolist() == [10.0 * (number % 4 == 0) for number in range(40)]
    assert set(manifest.strings("usage")) == {"Training"}


def test_a_corrected_expression_takes_the_votes_away(pack, picture, tmp_path):
    (tmp_path / "labels.csv").write_text("path,votes_Happy,votes_Sad\n1.jpg,6,4\n2.jpg,6,4\n")
    (tmp_path / "corrections.csv").write_text("path,column,value\n1.jpg,expression,Sad\n")
    path = pack("folder", {"1.jpg": picture(1), "2.jpg": picture(2)})
    source = FolderSource(tmp_path / "labels.csv", crop="chip")
    corrections = tmp_path / "corrections.csv"
    manifest = prepare(source, path, tmp_path / "out", corrections=corrections, show=False).manifest
    assert manifest.strings("expression").tolist() == ["Sad", "Happy"]
    assert manifest.strings("expression_from").tolist() == ["corrected", "votes"]
    assert np.isnan(manifest.votes()[0]).all()
    assert manifest.votes()[1, :3].tolist() == [0, 6, 4]


def test_poor_faces_are_refused_listed_and_shown(pack, picture, tmp_path):
    files = utk(picture)
    flat = encode(np.full((3, 40, 40), 90, np.uint8))
    files |= {f"UTKFace/{30 + number}_0_0_{DATE}9.jpg": flat for number in range(3)}
    out = tmp_path / "out"
    # Random pictures of 40 px have no skin and no focus: all but these three thresholds are switched off.
    some = QualityFilter(small=24, grey=0.01, low_contrast=0.1, blur=None, low_resolution=None, dark=None, bright=None)
    prepared = prepare(UTKFace(), pack("zip", files), out, quality=some, show=False)
    assert len(prepared.manifest) == 12
    reasons = listed(out / "rejected.csv")
    assert set(reasons) == {name for name in files if name.endswith("9.jpg")}
    assert set(reasons.values()) == {"quality: low contrast, grey (contrast 0 below 0.1; colour 0 below 0.01)"}
    assert prepared.facts()["reasons"] == {"quality: low contrast, grey": 3}
    with Image.open(out / "rejected.png") as sheet:
        assert sheet.width > 300
    with pytest.raises(MienError, match=r"none of the 15 pictures .* can be used; .*quality: blur, low resolution"):
        prepare(UTKFace(), tmp_path / "packed.zip", out, quality=QualityFilter(small=41), show=False)
    assert (out / "rejected.png").exists()
    prepare(UTKFace(), tmp_path / "packed.zip", out, show=False)
    assert not (out / "rejected.png").exists()


def test_a_cut_face_is_as_small_as_it_was_in_its_photo(fgnet, tmp_path):
    # 120 px wide in the photo and cut to 200: what counts is what the photo had.
    only = dict.fromkeys(QualityFilter.model_fields)
    some = QualityFilter(**{**only, "small": 112})
    assert not prepare(FGNet(), fgnet, tmp_path / "out", size=200, quality=some, show=False).rejected
    some = QualityFilter(**{**only, "small": 128})
    with pytest.raises(MienError, match=r"quality: low resolution \(side 1[12]\d(\.\d+)? below 128\)"):
        prepare(FGNet(), fgnet, tmp_path / "out", size=200, quality=some, show=False)


def test_tones_are_matched_and_written_beside_the_manifest(pack, picture, tmp_path):
    prepared = prepare(UTKFace(), pack("zip", utk(picture)), tmp_path / "out", matching="light", show=False)
    manifest = Manifest.open(tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["faces.parquet", "pictures.zip", "rejected.csv"]
    assert set(manifest.strings("matched")) == {"light"}
    assert len(prepared.manifest) == len(manifest) == 12
    pictures = manifest.pictures()
    faces = [manifest.face(row) for row in range(12)]
    lights = [tone(decode(pictures.read(face.path, face.archive))).mean[0] for face in faces]
    before = [tone(decode(picture(number))).mean[0] for number in range(12)]
    assert np.ptp(lights) < 3 < np.ptp(before)
    assert np.median(lights) == pytest.approx(np.median(before), abs=1.5)
    with pytest.raises(MienError, match="--match light: source drawn draws and labels its light"):
        prepare(DrawnSource(count=4, size=32), Path(), tmp_path / "drawn", matching="light", show=False)


def test_scores_of_the_users_own_are_no_detectors(picture, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "labels.csv").write_text("path,age,face_score\n0.jpg,20,0.98\n1.jpg,30,high\n")
    source = FolderSource(crop="chip", labels=tmp_path / "labels.csv")
    loose = QualityFilter(
        blur=None, low_resolution=None, small=None, dark=None, bright=None, low_contrast=None, grey=None
    )
    made = prepare(source, tmp_path, tmp_path / "out", quality=loose, show=False)
    assert len(made.manifest) == 2


def test_tables_are_read_before_hours_of_work_hang_on_them(pack, picture, tmp_path, monkeypatch):
    path, table = pack("folder", utk(picture, 3)), tmp_path / "t.csv"
    monkeypatch.setattr("mien.data.prepare._gather", lambda *_: pytest.fail("a picture was read"))
    for name, text, message in (
        ("splits", None, r"t\.csv is not there"),
        ("splits", "file,split\na.jpg,training\n", r"unknown split 'training' in t\.csv line 2"),
        ("splits", "file,split,duplicate_group\na.jpg,train,x\n", "'x' is no whole number"),
        ("corrections", None, r"t\.csv is not there"),
        ("corrections", "path,column,value\na.jpg,gender,Man\n", r"t\.csv line 2: .*gender 'Man'"),
        ("corrections", "path,column,value\na.jpg,valence,7\n", r"t\.csv line 2: .*valence 7"),
    ):
        table.unlink(missing_ok=True)
        if text is not None:
            table.write_text(text)
        with pytest.raises(MienError, match=message):
            prepare(UTKFace(), path, tmp_path / "out", show=False, **{name: table})
    with pytest.raises(MienError, match="names a folder"):
        prepare(UTKFace(), path, tmp_path / "out.parquet", show=False)
    for flag in ("size", "margin"):
        with pytest.raises(MienError, match=f"--{flag} 32: no face of source utkface is cut here"):
            prepare(UTKFace(), path, tmp_path / "out", show=False, **{flag: 32})
    with pytest.raises(MienError, match="--landmarks: source drawn"):
        prepare(DrawnSource(count=2, size=32), ".", tmp_path / "out", locate=lambda *_: None, show=False)
    assert not (tmp_path / "out.parquet").exists()
    assert not (tmp_path / "out").exists()


def test_figures_of_an_earlier_manifest_are_no_faces(pack, picture, tmp_path):
    path = pack("folder", {"a.jpg": picture(1), "faces/inspect/figure.png": picture(2)})
    prepared = prepare(FolderSource(crop="chip"), path, path / "faces", show=False)
    assert prepared.manifest.strings("path").tolist() == ["a.jpg"]
    assert listed(path / "faces" / "rejected.csv") == {
        "faces/inspect/figure.png": f"it lies in {path / 'faces'}, which -o writes"
    }
    # What lies beside a manifest in the folder that is read is none either, wherever the new one is written.
    prepare(FolderSource(crop="chip"), path, path, show=False)
    pack("folder", {"inspect/inspect.json": b"{}", "inspect/figures/analysis.png": picture(3), "b.jpg": picture(4)})
    prepared = prepare(FolderSource(crop="chip"), path, tmp_path / "elsewhere", show=False)
    assert {"a.jpg", "b.jpg"} <= set(prepared.manifest.strings("path"))
    refused = listed(tmp_path / "elsewhere" / "rejected.csv")
    assert refused["inspect/figures/analysis.png"] == "mien wrote it beside faces.parquet"


def test_a_manifest_made_of_another_never_shows_other_pictures(tmp_path):
    out = tmp_path / "out"
    prepare(DrawnSource(count=4, size=32), ".", out, show=False)
    Manifest.open(out).save(tmp_path / "derived.parquet")
    for seed in (1, 2, 3):
        prepare(DrawnSource(count=4, size=32, seed=seed), ".", out, show=False)
        derived = Manifest.open(tmp_path / "derived.parquet")
        findings = inspect_manifest(derived, show=False).findings
        assert len(findings["unreadable"]) == 4
    # Where the bytes are others all the same, the sha256 tells.
    name = derived.face(0).archive
    assert name is not None
    (out / Manifest.open(out).face(0).archive).rename(out / name)
    findings = inspect_manifest(derived, show=False).findings
    assert findings["unreadable"] == []
    assert findings["changed"] == derived.strings("path").tolist()


def test_a_corrected_race7_takes_the_race_that_was_made_of_it_along(pack, picture, tmp_path):
    files = {name: picture(number) for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg", "d.jpg"))}
    path, labels, corrections = pack("folder", files), tmp_path / "l.csv", tmp_path / "c.csv"
    labels.write_text("path,race,race7\na.jpg,,White\nb.jpg,,White\nc.jpg,Indian,White\nd.jpg,,\n")
    corrections.write_text("path,column,value\na.jpg,race7,Black\nb.jpg,race7,\nc.jpg,race7,Black\nd.jpg,race7,Black\n")
    source = FolderSource(labels, crop="chip")
    manifest = prepare(source, path, tmp_path / "out", corrections=corrections, show=False).manifest
    assert manifest.strings("race7").tolist() == ["Black", None, "Black", "Black"]
    assert manifest.strings("race").tolist() == ["Black", None, "Indian", "Black"]
    assert manifest.strings("race_from").tolist() == ["race7", None, "given", "race7"]


def test_figures_of_mien_in_the_folder_itself_are_no_faces(pack, picture, tmp_path):
    path = pack("folder", {f"{number}.png": picture(number) for number in range(3)})
    first = prepare(FolderSource(crop="chip"), path, path, show=False)
    assert len(first.manifest) == 3
    (path / "inspect").mkdir()
    (path / "inspect/inspect.json").write_text("{}")
    for place in ("inspect/figures/a.png", "ageing.val/b.png", "rejected.png", "evaluation/c.png"):
        (path / place).parent.mkdir(parents=True, exist_ok=True)
        (path / place).write_bytes((path / "0.png").read_bytes())
    again = prepare(FolderSource(crop="chip"), path, path, show=False)
    assert sorted(again.manifest.strings("path")) == ["0.png", "1.png", "2.png", "evaluation/c.png"]
    assert {item.path for item in again.rejected} == {"inspect/figures/a.png", "ageing.val/b.png", "rejected.png"}


def test_tables_are_tried_before_a_picture_is_read(pack, picture, tmp_path, monkeypatch):
    path, table = pack("folder", utk(picture, 3)), tmp_path / "t.csv"
    monkeypatch.setattr("mien.data.prepare._gather", lambda *_: pytest.fail("a picture was read"))
    name = next(iter(utk(picture, 1)))
    for flag, text, message in (
        ("splits", "file,split\nnobody.jpg,train\n", "names none of the 3 faces"),
        ("corrections", f"path,column,value\n{name},age_low,90\n{name},age_high,20\n", "line 3"),
    ):
        table.write_text(text)
        with pytest.raises(MienError, match=message):
            prepare(UTKFace(), path, tmp_path / "out", show=False, **{flag: table})
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_a_link_leads_to_is_left_out(pack, picture, tmp_path):
    path = pack("folder", {f"{number}.png": picture(number) for number in range(3)})
    (tmp_path / "away/inspect").mkdir(parents=True)
    (path / "made").symlink_to(tmp_path / "away")
    (tmp_path / "away/inspect/a.png").write_bytes((path / "0.png").read_bytes())
    assert len(prepare(FolderSource(crop="chip"), path, path / "made", show=False).manifest) == 3
