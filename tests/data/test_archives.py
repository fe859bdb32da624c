"""Folders, zips and tars read alike; names that lead outside and damaged archives are refused."""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from mien.data.archives import leads_outside, open_archive, open_tree
from mien.data.pictures import Pictures
from mien.errors import MienError, PictureError

FILES = {"a/one.bin": b"1" * 5000, "a/two.bin": b"2" * 7000, "b.bin": bytes(range(256)) * 40}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_every_kind_gives_the_same_files(pack, kind):
    tree = open_tree(pack(kind, {**FILES, "__MACOSX/a/._one.bin": b"x", "a/._two.bin": b"x"}))
    assert tree.names() == sorted(FILES)
    assert {name: tree.read(name) for name in tree.names()} == FILES
    with pytest.raises(PictureError, match=r"missing\.bin"):
        tree.read("missing.bin")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("evil", ["../e.bin", "a/../../e.bin", "/etc/e.bin", "C:\\e.bin", "..\\e.bin"])
def test_members_that_lead_outside_are_refused(pack, kind, evil):
    tree = open_tree(pack(kind, {"good.bin": b"good", evil: b"evil"}))
    assert tree.names() == ["good.bin"]
    assert list(tree.refused) == [evil.replace("\\", "/")]
    with pytest.raises(PictureError, match="outside"):
        tree.read(evil)


def test_a_folder_is_not_left(tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"secret")
    (tmp_path / "inside").mkdir()
    for path in ("../secret.bin", str(tmp_path / "secret.bin"), "x/../../secret.bin"):
        with pytest.raises(PictureError, match="outside"):
            Pictures(tmp_path / "inside").read(path)
    with pytest.raises(PictureError, match="outside"):
        Pictures(tmp_path / "inside").read("a.jpg", "../packed.zip")


def test_windows_separators_in_an_archive(pack):
    tree = open_tree(pack("zip", {"UTK\\a.bin": b"a"}))
    assert tree.names() == ["UTK/a.bin"]
    assert tree.read("UTK/a.bin") == tree.read("UTK\\a.bin") == b"a"


def test_only_names_that_climb_lead_outside():
    assert not any(map(leads_outside, ("a/b.jpg", "a..b/c.jpg", "..jpg", "a/...", "ein/zwei..jpg")))
    assert all(map(leads_outside, ("..", "a/..", "\\\\host\\share\\a", "\\a", "D:a")))


def test_what_is_no_archive_is_said(tmp_path):
    with pytest.raises(MienError, match="is not there"):
        open_tree(tmp_path / "none.zip")
    for name, data in (("bad.zip", b"no zip"), ("bad.tar", b"no tar" * 200), ("bad.tar.gz", b"\x1f\x8bnone")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MienError, match=f"{name} is damaged"):
            open_tree(tmp_path / name)
    (tmp_path / "a.rar").write_bytes(b"rar")
    with pytest.raises(MienError, match=r"no archive mien reads; it reads \.zip, \.tar"):
        open_tree(tmp_path / "a.rar")


def test_a_tar_gz_that_is_cut_off_is_said(pack):
    path = pack("tar.gz", FILES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MienError, match="is damaged"):
        open_tree(path)


def test_damage_inside_a_zip_is_the_member_s(pack):
    path = pack("zip", FILES)
    data = bytearray(path.read_bytes())
    for name, word in (("a/one.bin", b"1111"), ("a/two.bin", None)):
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo(name).header_offset + 30 + len(name)
        assert word is None or data[start : start + 4] == word
        data[start + 2] ^= 0xFF
    path.write_bytes(data)
    tree = open_tree(path)
    for name in ("a/one.bin", "a/two.bin"):
        with pytest.raises(PictureError, match=f"{name}.*damaged there"):
            tree.read(name)
    assert tree.read("b.bin") == FILES["b.bin"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_file_larger_than_any_picture_is_not_read(pack, monkeypatch, kind):
    monkeypatch.setattr("mien.data.archives.LARGEST", 6000)
    tree = open_tree(pack(kind, FILES))
    assert tree.read("a/one.bin") == FILES["a/one.bin"]
    with pytest.raises(PictureError, match=r"two.bin.*GB large; no picture is"):
        tree.read("a/two.bin")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes among files here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match=r"a.jpg: no file but a pipe"):
        open_tree(tmp_path).read("a.jpg")


def test_damage_in_the_list_of_a_zip_is_said(pack):
    path = pack("zip", {"a/ö.bin": b"o", **FILES})
    whole = path.read_bytes()
    entry = whole.index(b"PK\x01\x02")  # of the first member in the list at the end
    for place, value in ((6, 99), (whole.index("ö".encode(), entry) - entry, 0xFF)):
        data = bytearray(whole)
        data[entry + place] = value
        path.write_bytes(data)
        with pytest.raises(MienError, match=f"{path.name}.*(is damaged|UTF-8)"):
            open_tree(path)
    data = bytearray(whole)
    place = whole.rindex(b"PK\x05\x06") + 16  # where the list begins: what it says of all members counts from there
    data[place : place + 4] = (entry + 9).to_bytes(4, "little")
    path.write_bytes(data)
    tree = open_tree(path)
    for name in tree.names():
        with pytest.raises(PictureError, match=f"{name}.*damaged"):
            tree.read(name)


def test_encrypted_and_strangely_packed_members_are_refused(tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("plain.bin", b"plain")
        archive.writestr("lzma.bin", b"lzma" * 100, zipfile.ZIP_LZMA)
        archive.writestr("secret.bin", b"secret")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of encryption in the last entry of the directory
    path.write_bytes(data)
    tree = open_tree(path)
    assert tree.names() == ["plain.bin"]
    assert "method 14" in tree.refused["lzma.bin"]
    assert "encrypted" in tree.refused["secret.bin"]


def test_hard_links_in_a_tar(tmp_path):
    path = tmp_path / "linked.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("./a.bin")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
        for name, target in (("b.bin", "a.bin"), ("c.bin", "gone.bin")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            archive.addfile(link)
        link.name = link.linkname = "a.bin"
        archive.addfile(link)
    tree = open_tree(path)
    assert tree.names() == ["a.bin", "b.bin"]
    assert tree.read("a.bin") == tree.read("b.bin") == b"abc"
    assert "gone.bin" in tree.refused["c.bin"]


def test_symbolic_links_in_a_tar_are_followed_inside_it_and_no_further(tmp_path):
    path = tmp_path / "linked.tar"
    links = {"x/b.bin": "../a.bin", "c.bin": "./x/b.bin", "out.bin": "/etc/passwd", "up.bin": "../a.bin", "y": "x"}
    with tarfile.open(path, "w") as archive:
        for name, target in {**links, "round.bin": "other.bin", "other.bin": "round.bin"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        info = tarfile.TarInfo("a.bin")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    tree = open_tree(path)
    assert {name: tree.read(name) for name in tree.names()} == dict.fromkeys(("a.bin", "c.bin", "x/b.bin"), b"abc")
    assert sorted(tree.refused) == ["other.bin", "out.bin", "round.bin", "up.bin", "y"]
    assert tree.refused["out.bin"] == "it is a link to /etc/passwd, which is no file in the archive"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_threads_read_the_right_bytes_of_an_archive_opened_once(pack, kind, monkeypatch):
    opened = []
    monkeypatch.setattr("mien.data.pictures.open_archive", lambda path: opened.append(path) or open_archive(path))
    files = {f"{number}.bin": bytes([number]) * (1000 + number) for number in range(60)}
    path = pack(kind, files)
    pictures = Pictures(path.parent)
    names = list(files) * 20
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda name: pictures.read(name, path.name), names))
    assert all(data == files[name] for name, data in zip(names, read, strict=True))
    assert opened == [path]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_the_right_bytes(pack, method):
    files = {f"{number}.bin": bytes([number]) * 3000 for number in range(40)}
    path: Path = pack("zip", files)
    pictures = Pictures(path.parent)
    pictures.read("0.bin", path.name)  # opened before the fork
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        elsewhere = [pool.submit(pictures.read, name, path.name) for name in files]
        here = [pictures.read(name, path.name) for name in files]
        assert here == [future.result(60) for future in elsewhere] == list(files.values())


def test_links_to_folders_are_followed_and_each_folder_is_met_once(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "far" / "deep" / "one.bin").write_bytes(b"1")
    here = tmp_path / "here"
    here.mkdir()
    (here / "two.bin").write_bytes(b"2")
    (here / "link").symlink_to(tmp_path / "far")
    (here / "link again").symlink_to(tmp_path / "far" / "deep")
    (tmp_path / "far" / "round").symlink_to(here)
    tree = open_tree(here)
    assert tree.names() in (["link/deep/one.bin", "two.bin"], ["link again/one.bin", "two.bin"])
    assert tree.read(tree.names()[0]) == b"1"
    # What lies below has its own name, whatever links lead to it; what holds the folder is not read.
    (here / "v2" / "a").mkdir(parents=True)
    (here / "v2" / "a" / "three.bin").write_bytes(b"3")
    for name, target in (("current", here / "v2"), ("a", here / "v2" / "a"), ("up", tmp_path)):
        (here / name).symlink_to(target)
    assert [name for name in tree.names() if "three" in name] == ["v2/a/three.bin"]
    assert len(tree.names()) == 3


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_name_that_is_no_text_is_refused(pack, tmp_path, kind):
    odd = os.fsdecode(b"caf\xe9.bin")
    try:
        tree = open_tree(pack(kind, {"good.bin": b"good", odd: b"odd"}))
    except OSError:
        pytest.skip("this file system takes no such names")
    assert tree.names() == ["good.bin"]
    assert tree.refused == {"caf\\udce9.bin": "its name is no UTF-8 text; rename it"}


def test_a_member_that_unpacks_to_more_than_it_says_or_than_any_picture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mien.data.archives.LARGEST", 1000)
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", b"0" * 100_000)
        archive.writestr("b.jpg", b"0" * 500)
    tree = open_tree(path)
    assert "no picture is" in tree.refused["a.jpg"]
    assert tree.read("b.jpg") == b"0" * 500
    data = path.read_bytes().replace((500).to_bytes(4, "little"), (100).to_bytes(4, "little"))  # the size that it says
    path.write_bytes(data)
    with pytest.raises(PictureError, match="checksum"):
        open_tree(path).read("b.jpg")
