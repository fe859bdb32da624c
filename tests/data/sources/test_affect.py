"""AffectNet's layout: four small files a face, in every form and fault they are met in."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mien.data.sources import SOURCES, Rejected
from mien.data.sources.affect import Affect, expression_code, feeling_in, landmarks_in, read_values
from mien.errors import MienError
from mien.faces import Face

POINTS = np.random.default_rng(0).uniform(-30, 250, (68, 2))


def npy(value: object, **how: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), **how)
    return buffer.getvalue()


def face(number: object, exp=3, val=0.5, aro=-0.25, lnd=POINTS, ending: str = ".jpg") -> dict[str, bytes]:
    """The five files of a face as the given data set has them: labels are 0-d unicode arrays."""
    return {
        f"Dataset/images/{number}{ending}": b"",
        f"Dataset/annotations/{number}_exp.npy": npy(str(exp)),
        f"Dataset/annotations/{number}_val.npy": npy(str(val)),
        f"Dataset/annotations/{number}_aro.npy": npy(str(aro)),
        f"Dataset/annotations/{number}_lnd.npy": npy(np.ravel(lnd)),
    }


def read(path) -> tuple[dict[str, Face], list[tuple[str, str]]]:
    items = list(Affect().faces(path))
    faces = {item.path: item for item in items if isinstance(item, Face)}
    rejected = [(item.path, item.reason) for item in items if isinstance(item, Rejected)]
    assert len(faces) + len(rejected) == len(items)
    return faces, rejected


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_the_data_set_as_it_is(pack, kind):
    path = pack(kind, {**face(7, exp=0, val=-0.176846, aro=1), **face(12, exp=7)})
    faces, rejected = read(path)
    assert rejected == []
    one, other = faces["Dataset/images/7.jpg"], faces["Dataset/images/12.jpg"]
    assert (one.expression, other.expression) == ("Neutral", "Contempt")
    assert (one.valence, one.arousal) == (pytest.approx(-0.176846), 1.0)
    assert (other.valence, other.arousal) == (0.5, -0.25)
    np.testing.assert_allclose(one.landmarks, POINTS, rtol=1e-6)  # also those outside the frame
    assert one.source == "affect"
    assert one.archive == (None if kind == "folder" else path.name)


@pytest.mark.parametrize("root", ["", "a/b/Dataset/"])
def test_any_root_case_and_separator(pack, root):
    files = {name.replace("Dataset/", root): data for name, data in face("0A", ending=".JPG").items()}
    files = {name.replace("_exp.npy", "_EXP.NPY").replace("annotations/", "Annotations\\"): data
             for name, data in files.items()}  # fmt: skip
    files["__MACOSX/images/._0A.JPG"] = b""
    faces, rejected = read(pack("zip", files))
    assert rejected == []
    assert [(one.expression, one.valence) for one in faces.values()] == [("Surprise", 0.5)]


def test_two_parts_with_the_same_numbers(pack):
    files = {name.replace("Dataset", "val_set"): data for name, data in face(1, exp=1).items()}
    files |= {name.replace("Dataset", "train_set"): data for name, data in face(1, exp=2).items()}
    faces, rejected = read(pack("zip", files))
    assert rejected == []
    assert {path: one.expression for path, one in faces.items()} == {
        "train_set/images/1.jpg": "Sad",
        "val_set/images/1.jpg": "Happy",
    }


def test_faults_are_listed_and_the_rest_goes_on(pack):
    """Issue's row h: everything that is wrong with one file leaves the face its other labels."""
    files: dict[str, bytes] = {}
    for number in range(1, 13):
        files |= face(number)
    at = "Dataset/annotations/"
    del files[f"{at}1_val.npy"]
    files[f"{at}2_lnd.npy"] = npy(POINTS[:60])
    files[f"{at}3_aro.npy"] = npy(float("nan"))
    files[f"{at}4_lnd.npy"] = npy(np.where(np.arange(136) == 5, np.nan, 1.0))
    files[f"{at}5_val.npy"] = npy("very happy")
    files[f"{at}6_exp.npy"] = npy("8")
    files[f"{at}7_val.npy"] = npy(1.5)
    files[f"{at}8_exp.npy"] = npy(np.array([3], dtype=object), allow_pickle=True)
    files[f"{at}9_exp.npy"] = b""
    files[f"{at}10_aro.npy"] = npy(0.5)[:-3]
    files[f"{at}11_exp.npy"] = npy([1, 2])
    files |= {f"{at}99_exp.npy": npy(1), f"{at}99_val.npy": npy(0.1), "Dataset/images/100.jpg": b""}
    faces, rejected = read(pack("zip", files))
    assert {int(path[15:-4]) for path in faces} == set(range(1, 13))
    reasons = {path.removeprefix(at).removeprefix("Dataset/"): reason for path, reason in rejected}
    assert len(reasons) == len(rejected)
    expected = {
        "images/1.jpg": "no annotation _val.npy: no valence",
        "2_lnd.npy": "landmarks: 120 numbers, expected 68 points of x and y: 136",
        "3_aro.npy": "arousal: nan is no label",
        "4_lnd.npy": "landmarks: nan is no label",
        "5_val.npy": "valence: 2 values, expected one",
        "6_exp.npy": "expression: class 8 is none of 0 Neutral, 1 Happy, 2 Sad, 3 Surprise, 4 Fear, 5 Disgust, 6 Anger",
        "7_val.npy": "valence: 1.5 is outside [-1, 1]",
        "8_exp.npy": "expression: an array of pickled objects, which is not loaded",
        "9_exp.npy": "expression: the file is empty",
        "10_aro.npy": "arousal: 5 bytes of values, expected 8",
        "11_exp.npy": "expression: 2 values, expected one",
        "99_exp.npy": "no picture is of this annotation",
        "99_val.npy": "no picture is of this annotation",
        "images/100.jpg": "no annotation is of this picture",
    }
    expected["5_val.npy"] = "valence: 'very happy' is no number"
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason), name
    by = {int(path[15:-4]): one for path, one in faces.items()}
    assert {number for number, one in by.items() if one.expression is None} == {6, 8, 9, 11}
    assert {number for number, one in by.items() if one.valence is None} == {1, 5, 7}
    assert {number for number, one in by.items() if one.arousal is None} == {3, 10}
    assert {number for number, one in by.items() if one.landmarks is None} == {2, 4}
    assert all(one.expression in (None, "Surprise") and one.valence in (None, 0.5) for one in by.values())


def test_unknown_is_missing_and_no_fault(pack):
    files = face(1, exp=-2, val=-2, aro="-2.0") | face(2, exp=1, val=-2, aro=-2)
    files |= face(3, exp=-2, val=-2, aro=-2, lnd=np.full(136, -2.0))
    faces, rejected = read(pack("folder", files))
    one, other = faces["Dataset/images/1.jpg"], faces["Dataset/images/2.jpg"]
    assert (one.expression, one.valence, one.arousal) == (None, None, None)
    assert one.landmarks is not None
    assert (other.expression, other.valence, other.arousal) == ("Happy", None, None)
    assert rejected == [("Dataset/images/3.jpg", "none of its annotations holds a label")]


def test_a_second_picture_and_a_second_annotation(pack):
    files = face(1) | {"Dataset/images/1.png": b"", "Dataset/annotations/1_exp.txt": b"5"}
    faces, rejected = read(pack("zip", files))
    assert faces["Dataset/images/1.jpg"].expression == "Surprise"
    assert dict(rejected) == {
        "Dataset/annotations/1_exp.txt": "Dataset/annotations/1_exp.npy is the same annotation",
        "Dataset/images/1.png": "its annotations are those of Dataset/images/1.jpg",
    }


def test_a_damaged_member_of_a_zip_costs_one_label(pack):
    path = pack("zip", face(1))
    data = bytearray(path.read_bytes())
    start = data.index(b"_aro.npy") + len(b"_aro.npy")
    data[start + 5] ^= 0xFF
    path.write_bytes(bytes(data))
    faces, rejected = read(path)
    assert [(one.valence, one.arousal) for one in faces.values()] == [(0.5, None)]
    assert len(rejected) == 1
    assert "damaged" in rejected[0][1]


@pytest.mark.parametrize(
    "value",
    [3, [3], [[3]], "3", b"3", ["3"], 3.0, "3.0", " 3 ", np.uint8(3), np.array("3", ">U4"), np.float16(3),
     "Surprise", "surprise", np.eye(8)[3], np.eye(8)[3][None], [0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1, 0.1]],
)  # fmt: skip
def test_forms_of_an_expression(value):
    assert expression_code(read_values(npy(value))) == 3


@pytest.mark.parametrize(
    "value",
    [8, -1, 3.5, "", "x", "Bored", [], [1, 2], np.nan, np.inf, 1j, np.zeros(8), np.ones(8) / 8, np.arange(8.0),
     -np.eye(8)[3], np.eye(7)[3], [np.nan] * 8, ["a"] * 8],
)  # fmt: skip
def test_what_is_no_expression(value):
    with pytest.raises(MienError):
        expression_code(read_values(npy(value)))


@pytest.mark.parametrize("value", [-0.5, [-0.5], "-0.5", "-5e-1", b"-0.5", np.float16(-0.5)])
def test_forms_of_a_feeling(value):
    assert feeling_in(read_values(npy(value))) == -0.5


@pytest.mark.parametrize("form", [np.float32, np.float64, np.str_, np.bytes_, ">f8"])
@pytest.mark.parametrize("shape", [(136,), (68, 2), (1, 136)])
def test_forms_of_landmarks(form, shape):
    values = np.round(POINTS, 3).astype(form).reshape(shape)
    np.testing.assert_allclose(landmarks_in(read_values(npy(values))).reshape(68, 2), np.round(POINTS, 3), rtol=1e-6)


@pytest.mark.parametrize("text", [b"0.25", b" 0.25\r\n", "\ufeff0.25".encode(), b"[0.25]"])
def test_plain_text(text):
    assert feeling_in(read_values(text)) == 0.25


def test_landmarks_as_plain_text():
    text = "\n".join(f"{x:.3f}, {y:.3f}" for x, y in POINTS).encode()
    np.testing.assert_allclose(landmarks_in(read_values(text)).reshape(68, 2), POINTS, atol=6e-4)


@pytest.mark.parametrize(
    "value", [np.zeros(135), np.zeros((2, 68, 2)), ["x"] * 136, np.full(136, np.inf), np.full(136, 1e300)]
)
def test_what_are_no_landmarks(value):
    with pytest.raises(MienError):
        landmarks_in(read_values(npy(value)))


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    for data in (pickle.dumps(Trap()), npy(np.array([Trap()]), allow_pickle=True)):
        with pytest.raises(MienError, match="pickle"):
            read_values(data)
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_promises_terabytes_takes_no_memory():
    small = npy(np.zeros(2))
    data = small.replace(b"(2,), }" + b" " * 13, b"(99999999999999,), }")
    assert len(data) == len(small)
    with pytest.raises(MienError, match="16 bytes of values, expected 799999999999992 "):
        read_values(data)


@pytest.mark.parametrize("order", "<>")
def test_text_of_what_are_no_characters_is_damage(order):
    whole = npy(np.array(["1"] * 136, dtype=f"{order}U1"))
    assert read_values(whole).tolist() == ["1"] * 136
    with pytest.raises(MienError, match="no character"):
        read_values(whole[:-4] + b"\x7f\x00\x00\x7f")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_never_raises_anything_else(data):
    whole = data.draw(st.sampled_from([npy("0.5"), npy(3), npy(POINTS), npy(np.eye(8)[1]), b"0.5", npy(["1"] * 136)]))
    changes = data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6))
    damaged = bytearray(whole)
    for place, value in changes:
        damaged[place] = value
    damaged = damaged[: data.draw(st.integers(0, len(whole)))]
    for parse, right in (
        (expression_code, lambda code: code in range(-1, 8)),
        (feeling_in, lambda value: value != value or -1 <= value <= 1),
        (landmarks_in, lambda points: points.shape == (136,) and (np.isfinite(points).all() or np.isnan(points).all())),
    ):  # type: tuple[Callable, Callable]
        try:
            value = parse(read_values(bytes(damaged)))
        except MienError:
            continue
        assert right(value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    for start in (b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x93NUMPY"):
        try:
            read_values(start + data)
        except MienError:
            pass


def test_it_is_known_by_its_names():
    assert Affect.recognises(list(face(1)))
    assert not Affect.recognises(["a.jpg", "b.jpg", "1_exp.npy"])
    assert SOURCES["affect"] is Affect
