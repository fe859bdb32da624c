"""The served page without a browser: what it names, what it answers, and that nothing comes in or stays."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mien.data.pictures import encode
from mien.errors import MienError
from mien.web.answers import Service
from mien.web.app import _refused, address, build_app, listen, nothing_kept, require_web

SHIPPED = [
    {"name": "one", "tasks": ["age"], "figures": {"age MAE": "4.20"}, "terms": "Research only", "megabytes": 1.0}
    | {"sha256": "ab" * 32}
]
#: An address, but for the namespaces by which XML knows its words.
ADDRESS = re.compile(r"(?:https?:|wss?:)?//(?!www\.w3\.org/)[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
#: gradio keeps times of answers in pandas, whose newest version warns of how it does.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio")


class Page:
    """One open page: it sends files and asks as a browser does."""

    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name
        self.numbers = {one["api_name"]: one["id"] for one in client.get("/config").json()["dependencies"]}

    def upload(self, data: bytes, name: str = "photo.png") -> dict[str, Any]:
        (path,) = self.client.post("/gradio_api/upload", files={"files": (name, data)}).json()
        return {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": name}

    def ask(self, question: str, *given: Any) -> list[str]:
        """The answer's HTML, an entry an output; what the page says of a failure."""
        body = {"fn_index": self.numbers[question], "data": list(given), "session_hash": self.name}
        assert self.client.post("/gradio_api/queue/join", json=body).status_code == 200
        told = self.client.get("/gradio_api/queue/data", params={"session_hash": self.name}).text
        events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
        (done,) = [event for event in events if event["msg"] == "process_completed"]
        return done["output"]["data"] if done["success"] else [f"failed: {done['output'].get('error')}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        with nothing_kept() as place:
            assert Path(place).stat().st_mode & 0o077 == 0
            yield Path(place)
        assert not Path(place).exists()


@pytest.fixture(scope="module")
def client(service: Callable[..., Service], folder: Path) -> Iterator[Any]:
    from starlette.testclient import TestClient

    with TestClient(build_app(service((10, 10, 60), (90, 10, 60)), SHIPPED)) as client:
        yield client


@pytest.fixture
def page(client: Any, request: pytest.FixtureRequest) -> Page:
    return Page(client, request.node.name)


@pytest.fixture(scope="module")
def png(photo: np.ndarray) -> bytes:
    return encode(photo, "PNG")


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_the_page_names_no_outside_host(client: Any) -> None:
    for path in ("/", "/config", "/theme.css", "/gradio_api/info"):
        answer = client.get(path)
        assert answer.status_code == 200
        named = {found for found in ADDRESS.findall(answer.text) if "testserver" not in found}
        assert not named, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "//" not in policy


def test_gradio_is_told_to_be_silent_and_to_remember_nothing(client: Any) -> None:
    config = client.get("/config").json()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert (config["analytics_enabled"], config["run_history"], config["stylesheets"]) == (False, False, [])
    assert (config["footer_links"], config["mcp_server"], config["space_id"]) == ([], False, None)
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404
    import mien.web

    assert not list(Path(mien.web.__path__[0]).glob("*.pyi"))  # gradio writes them beside components of one's own


def test_terms_and_models_stand_on_the_page(client: Any) -> None:
    values = [part["props"].get("value") for part in client.get("/config").json()["components"]]
    said = words(" ".join(value for value in values if isinstance(value, str)))
    assert "Decide nothing about a person with it." in said
    assert "Research only: brightness, feelings, tint" in said
    assert "Its file is deleted as soon as it is answered" in said
    assert "one age age MAE 4.20 Research only 1.00 MB abababababababab" in said
    assert "These pictures are synthetic: tint guesses" in said


def test_a_photo_is_answered_and_its_file_deleted(page: Page, png: bytes, folder: Path) -> None:
    file = page.upload(png)
    told, aged = page.ask("receive", file, False)
    assert "1 40 36–44 (90 %) Male 75 % Female 25 %" in words(told)
    assert aged == ""
    assert [path for path in folder.rglob("*") if path.is_file()] == []

    told_again, _ = page.ask("receive", file, False)  # gradio may tell twice of one upload
    assert told_again == told

    (again,) = page.ask("again", True)
    assert "Male" not in words(again)
    assert "40 36–44 (90 %) Neutral" in words(again)

    (aged,) = page.ask("age", "10,60")
    assert aged.count("image/gif") == 2
    assert "age 60 synthetic" in words(aged)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_page_without_a_photo_asks_for_one(page: Page, png: bytes) -> None:
    for question, given in (("again", [False]), ("age", ["5:95:10"])):
        assert "Choose a photo" in page.ask(question, *given)[0]
    page.ask("receive", page.upload(png), False)
    other = Page(page.client, f"{page.name}-other")
    assert "Choose a photo" in other.ask("age", "5:95:10")[0]  # nobody sees a photo of another page
    assert "Choose a photo" in page.ask("receive", None, False)[0]
    assert "Choose a photo" in page.ask("age", "5:95:10")[0]


def test_a_closed_page_is_forgotten(page: Page, png: bytes) -> None:
    page.ask("receive", page.upload(png), False)
    page.ask("forget")
    assert "Choose a photo" in page.ask("again", False)[0]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jpg", b"no picture", "This picture cannot be read (no picture: it begins with b'no pictu'); take a JPEG"),
        ("b.png", b"\x89PNG\r\n\x1a\n cut", "This picture cannot be read"),
        ("c.png", encode(np.zeros((3, 4, 300), dtype=np.uint8), "PNG"), "300x4 px: smaller than 8 px"),
    ],
)
def test_a_bad_picture_is_a_sentence(page: Page, name: str, data: bytes, message: str, folder: Path) -> None:
    told, _ = page.ask("receive", page.upload(data, name), False)
    assert message in words(told)
    assert 'class="notice problem"' in told
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_bad_ages_are_a_sentence(page: Page, png: bytes) -> None:
    page.ask("receive", page.upload(png), False)
    assert words(page.ask("age", "20,20")[0]) == "Ages to render: 20, 20; expected one or more, each once."
    assert "Age 200 to render is outside 0-120 years." in words(page.ask("age", "200")[0])


def test_nothing_is_fetched_or_read_from_elsewhere(
    page: Page, png: bytes, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something reached for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    file = {"meta": {"_type": "gradio.FileData"}, "orig_name": "a.png"}
    mine = tmp_path / "mine.png"
    mine.write_bytes(png)
    above = f"{folder}/../{mine.relative_to('/')}"
    for path in ("https://example.org/a.png", "//example.org/a.png", str(mine), above, "pyproject.toml"):
        assert page.ask("receive", file | {"path": path}, False) == [
            "failed: a photo is a file that this page has uploaded"
        ]
        assert page.client.get(f"/gradio_api/file={path}").status_code in (403, 404)
    for path in ("proxy=https://example.org/", "deep_link?session_hash=one", "runs", "vibe-code/"):
        assert page.client.get(f"/gradio_api/{path}").status_code == 404
    assert mine.read_bytes() == png
    assert "Choose a photo" in page.ask("again", False)[0]


def test_gradio_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MienError, match=r"gradio is not installed; in mien's folder, run: pip install '\.\[web\]'"):
        require_web()


def test_a_port_in_use_and_a_strange_host_are_said() -> None:
    with listen("127.0.0.1", 0) as waiting:
        port = waiting.getsockname()[1]
        assert address(waiting) == f"http://127.0.0.1:{port}"
        with (
            pytest.raises(MienError, match=rf"port {port} of 127.0.0.1 is in use.* --port {port + 1}"),
            listen("127.0.0.1", port),
        ):
            pass
    with listen("127.0.0.1", port):
        pass
    with (
        pytest.raises(MienError, match=r"host '192.0.2.1' is no address of this machine; expected 127.0.0.1"),
        listen("192.0.2.1", 0),
    ):
        pass
    assert "more rights than yours" in str(_refused(OSError(errno.EACCES, "no"), "127.0.0.1", 80))


def test_pages_of_other_sites_get_no_answer(client: Any, png: bytes, service: Callable[..., Service]) -> None:
    from starlette.testclient import TestClient

    files = {"files": ("a.png", png)}
    for origin in ("http://evil.example", "http://testserver:81", "null"):
        refused = client.post("/gradio_api/upload", files=files, headers={"origin": origin})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert client.post("/gradio_api/upload", files=files, headers={"origin": "http://testserver:80"}).status_code == 200
    # On this machine alone, a name of another site that leads here is another site.
    with TestClient(build_app(service((10, 10, 60)), SHIPPED, local=True)) as local:
        assert local.get("/config").status_code == 403
        for host in ("127.0.0.1:7860", "LocalHost:7860", "[::1]:7860"):
            assert local.get("/config", headers={"host": host}).status_code == 200
        for bad in ({"host": "[::1"}, {"host": "localhost", "origin": "http://[x"}, {"host": "localhost:7:7"}):
            assert local.get("/config", headers=bad).status_code == 403
