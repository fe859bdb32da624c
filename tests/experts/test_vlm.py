"""Ages as distributions over number tokens: against hand-made models, and real classes with random weights."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from mien.errors import MienError
from mien.experts import vlm
from mien.experts.vlm import AGES, Numbers, Vlm, age_in, expected, masses

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
tiny = importlib.import_module("tiny_image_text")

nan = float("nan")
#: A tokenizer of digits alone: its tokens are 0 to 9, then a blank, then the word.
DIGITS = Numbers({**{tuple(map(int, str(age))): age for age in AGES}, (11,): 101, (10, 4): 4}, list(range(10)))


@pytest.fixture(scope="module", params=["janus", "llava"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return getattr(tiny, request.param)(tmp_path_factory.mktemp(request.param))


def pictures(count: int) -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (3, 40, 40), dtype=np.uint8) for n in range(count)]


def test_masses_by_hand() -> None:
    table = {
        (): {4: 0.5, 1: 0.2, 10: 0.1, 11: 0.15},  # 0.05 goes to other words
        (4,): {2: 0.6, 0: 0.1},  # so 0.3 ends the number at 4
        (1,): {0: 1.0},
        (1, 0): {0: 0.25},
        (10,): {4: 0.5},
    }

    def ask(rows: Sequence[int], tails: Sequence[tuple[int, ...]]) -> torch.Tensor:
        shares = torch.zeros(len(rows), 12, dtype=torch.float64)
        for place, tail in enumerate(tails):
            for token, share in table[tail].items():
                shares[place, token] = share
        return shares

    found = masses(DIGITS, ask, 2)
    assert found.shape == (2, 102)
    expected_ = {42: 0.3, 40: 0.05, 4: 0.5 * 0.3 + 0.1 * 0.5, 10: 0.15, 100: 0.05, 101: 0.15}
    for row in found:
        assert {place: share for place, share in enumerate(row.tolist()) if share} == pytest.approx(expected_)


def test_the_age_is_expected_and_unknown_stays_unknown() -> None:
    likely = np.zeros((4, 102))
    likely[0, [20, 40]], likely[0, 101] = (0.3, 0.1), 0.2
    likely[1, 30], likely[1, 101] = 0.4, 0.41
    likely[2, 30] = 0.01
    said = expected(likely, 0.1)
    assert said.ages == pytest.approx([25, nan, nan, nan], nan_ok=True)
    assert said.variances == pytest.approx([75, nan, nan, nan], nan_ok=True)
    assert said.confidences == pytest.approx([-math.sqrt(75), nan, nan, nan], nan_ok=True)


def test_masses_are_those_of_whole_answers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number spelt out after the prompt and scored in one pass of its own."""
    monkeypatch.setattr(vlm, "FAINT", 0.0)
    expert = Vlm(model, least=0.0)
    found = expert.masses(pictures(3))
    assert (found.sum(1) < 1).all()
    words, image = expert.model.tokenizer, pictures(3)[1]
    digits = [words.convert_tokens_to_ids(digit) for digit in "0123456789"]
    for age in (0, 4, 10, 42, 99, 100):
        mass = 0.0
        for spelt in (str(age), f" {age}"):
            tokens = words(spelt)["input_ids"]
            inputs = expert.model.inputs([image], expert.question)
            start = inputs["input_ids"].shape[1]
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            with torch.no_grad():
                shares = expert.model.model(**inputs).logits[0, start - 1 :].double().softmax(1)
            share = math.prod(shares[place, token].item() for place, token in enumerate(tokens))
            more = age in (*range(1, 10), 10)  # 1 to 9, and 10, may go on
            mass += share * (1 - shares[-1, digits].sum().item() if more else 1.0)
        assert found[1, age] == pytest.approx(mass, rel=1e-4)
    said = expert.ask(pictures(3))
    shares = found[:, :101] / found[:, :101].sum(1, keepdims=True)
    assert said.ages == pytest.approx(shares @ np.arange(101))
    assert len(np.unique(found[:, 42])) == 3  # it sees the pictures


def test_a_random_model_is_no_expert(model: Path) -> None:
    expert = Vlm(model)
    assert np.isnan(expert.ask(pictures(2)).ages).all()  # numbers have less than a tenth of its probability
    assert expert.terms == "unknown: no card names a licence"


def test_drawn_answers_are_read_and_repeat(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expert = Vlm(model, samples=4)
    said = expert.model.say(pictures(1)[0], "how old?", 3, 6, seed=5)
    assert len(said) == 3
    assert len(set(said)) > 1
    assert expert.model.say(pictures(1)[0], "how old?", 3, 6, seed=5) == said
    with monkeypatch.context() as patched:
        forked: list[object] = []
        patched.setattr(torch.random, "fork_rng", lambda devices: forked.append(devices) or nullcontext())  # type: ignore[func-returns-value]
        for device in ("cpu", "cuda:1"):
            patched.setattr(expert.model, "device", device)
            patched.setattr(expert.model, "inputs", lambda images, question: {})
            patched.setattr(expert.model, "answers", lambda inputs, **options: [])
            expert.model.say(pictures(1)[0], "how old?", 3, 6, seed=5)
        assert forked == [[], [torch.device("cuda:1")]]  # nobody else's numbers, and no other card is woken
    answers = {0: ["about 30", "He is 34 years old.", "unknown", "30-34"], 1: ["no", "42", "?", "!"]}
    seeds: list[int] = []

    def say(image: np.ndarray, question: str, count: int, tokens: int, seed: int) -> list[str]:
        seeds.append(seed)
        return answers[(len(seeds) - 1) % 2]

    monkeypatch.setattr(expert.model, "say", say)
    drawn = expert.ask(pictures(2))
    assert drawn.ages == pytest.approx([32, nan], nan_ok=True)
    assert drawn.variances == pytest.approx([4, nan], nan_ok=True)
    expert.ask(pictures(2))
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("42", 42),
        ("I would say 42.", 42),
        ("between 30 and 40", 30),
        ("30-40 years", 35),
        ("30 to 40", 35),
        ("2.5 years", 2.5),
        ("born in 1975", nan),
        ("in 1975, so 42", 42),
        ("unknown", nan),
        ("", nan),
    ],
)
def test_numbers_in_sentences(text: str, age: float) -> None:
    assert age_in(text) == pytest.approx(age, nan_ok=True)


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(MienError, match=r"config.json: no such file"):
        Vlm(tmp_path / "gone")
    (tmp_path / "config.json").write_text('{"model_type": "tellaris", "auto_map": {"AutoModel": "evil.Model"}}')
    (tmp_path / "evil.py").write_text("raise SystemExit('was run')")
    with pytest.raises(MienError, match="tellaris cannot be opened as an image-text model"):
        Vlm(tmp_path)
    place = tiny.janus(tmp_path / "janus")
    (place / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(MienError, match="janus cannot be opened"):
        Vlm(place)
