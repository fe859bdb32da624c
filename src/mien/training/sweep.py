"""A sweep: one recipe over some values of some keys, an ordinary run each; and one page and table of them all."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from mien.errors import MienError
from mien.files import write_json, write_text
from mien.models.checkpoint import read_json
from mien.training.recipe import Recipe, load_recipe
from mien.training.record import CONFIG, changed_settings, open_faces

TABLE, SHEET, PAGE = "sweep.json", "sweep.csv", "sweep.html"
#: What a beta-VAE pays and gets, kept in its run.
TRADE_OFF = "trade_off.json"
#: Faces of `val` that a trade-off is judged on, at most.
FACES = 2000


@dataclass(frozen=True, slots=True)
class Member:
    """One run of a sweep: the folder it has in the sweep's, the values that set it apart, and its recipe."""

    name: str
    values: dict[str, Any]
    overrides: list[str]
    recipe: Recipe


@dataclass(slots=True)
class Outcome:
    """How a member ended: `status` is done, kept (done before, left alone), changed (a run of other settings stands
    there) or failed; `error` says why. `figures` are its `val` figures by name, `code` its trade-off."""

    member: Member
    status: str = ""
    error: str = ""
    seconds: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """What of it is written down."""
        names = ("status", "error", "seconds", "figures", "code")
        return {"run": self.member.name, "values": self.member.values, **{name: getattr(self, name) for name in names}}


#: Trains a member into a folder, writing what it says to a log; returns the reason why it failed, or nothing.
Launch = Callable[["Sweep", Member, Path], str]


def members(recipe: str, overrides: Sequence[str], over: Sequence[str]) -> list[Member]:
    """Every combination of the values of `over`, each `key=v1,v2,...` (values as YAML, so `a.b=[],[x]` are two lists).

    All recipes are resolved here: a mistake in one is found before any is trained.

    Raises:
        MienError: no key, a key twice, a key without values, a value twice however it is written, or what `load_recipe`
            refuses.
    """
    if not over:
        raise MienError("a sweep without --over: name a key and its values, such as --over seed=0,1,2")
    keys: dict[str, list[Any]] = {}
    for text in over:
        key, equals, values = text.partition("=")
        try:
            found = yaml.safe_load(f"[{values}]")
        except yaml.YAMLError:
            raise MienError(f"--over {text!r}: the values are not YAML; quote them") from None
        if not equals or not key or not found:
            raise MienError(f"--over {text!r}: expected key=value,value, such as seed=0,1,2")
        if key in keys:
            raise MienError(f"--over {key} is given twice; name all its values at once")
        if len({_json(value) for value in found}) < len(found):
            raise MienError(f"--over {text!r}: a value stands there twice")
        keys[key] = found
    ends = [key.rpartition(".")[2] for key in keys]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}
    result: list[Member] = []
    for combination in product(*keys.values()):
        chosen = dict(zip(keys, combination, strict=True))
        name = "_".join(f"{short[key]}={_plain(value)}" for key, value in chosen.items())
        name += f"-{len(result)}" if any(name == other.name for other in result) else ""
        own = [*overrides, *(f"{key}={_json(value)}" for key, value in chosen.items())]
        resolved = load_recipe(recipe, own)
        for other in result:
            if other.recipe == resolved:
                raise MienError(f"--over: {other.name} and {name} are one and the same run; leave one out")
        result.append(Member(name, chosen, own, resolved))
    return result


def _json(value: Any) -> str:
    """A value as JSON, which is YAML too; a date that YAML made of a word becomes the word again."""
    return json.dumps(value, default=str)


def _plain(value: Any) -> str:
    """A value as part of a folder's name."""
    text = value if isinstance(value, str) else _json(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "empty"


class Sweep:
    """A recipe, what it is swept over, and the folder where its runs, table and page are."""

    def __init__(self, recipe: str, overrides: Sequence[str], over: Sequence[str], folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.members = members(recipe, overrides, over)
        self.keys = list(self.members[0].values)
        self.children: list[subprocess.Popen[bytes]] = []
        self.threads: int | None = None
        self._lock = threading.Lock()
        self._said: dict[str, dict[str, Any]] = {}
        if (folder / TABLE).is_file():
            before = read_json(folder / TABLE, "remove it: the same command tells again what the runs beside it gave")
            self._said = {row["run"]: row for row in before["runs"]}

    def run(
        self,
        *,
        jobs: int = 1,
        launch: Launch | None = None,
        device: str = "cpu",
        seeds: int = 3,
        resamples: int = 1000,
        say: Callable[[str], None] = lambda text: None,
    ) -> dict[str, Any]:
        """Train what is not trained yet, `jobs` at a time, and write the table, the CSV and the page.

        A member that fails is listed with its error, the others go on. Returns what `sweep.json` holds.
        """
        launch = launch or train_apart
        # Side by side, processes share the cores; one alone keeps what it would take by itself.
        self.threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
        outcomes = {member.name: Outcome(member) for member in self.members}

        def one(member: Member) -> None:
            outcome = outcomes[member.name]
            say(f"{member.name}: begins")
            started = time.monotonic()
            self._train(outcome, launch)
            if outcome.status in ("done", "kept"):
                try:
                    self._judge(outcome, device, seeds, resamples)
                except (MienError, OSError) as error:
                    outcome.error = f"trained, but not judged: {error}"
            if outcome.status == "done":
                outcome.seconds = time.monotonic() - started
            say(f"{member.name}: {outcome.status}{f': {outcome.error}' if outcome.error else ''}")
            with self._lock:
                self._said[member.name] = outcome.row()
                self._write()

        pool = ThreadPoolExecutor(jobs)
        try:
            for waiting in [pool.submit(one, member) for member in self.members]:
                waiting.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in self.children:
                child.terminate()
            raise
        pool.shutdown()
        return self._finish()

    def _train(self, outcome: Outcome, launch: Launch) -> None:
        member, run = outcome.member, self.folder / outcome.member.name
        before = self._said.get(member.name, {})
        if before.get("status") in ("done", "kept", "changed") and (run / CONFIG).is_file():
            try:
                changed = changed_settings(run, member.recipe, open_faces(member.recipe))
            except MienError as error:
                outcome.status, outcome.error = "failed", str(error)
                return
            outcome.status, outcome.seconds = ("changed" if changed else "kept"), before.get("seconds")
            if changed:
                outcome.error = (
                    f"a run of other settings stands in {run} ({', '.join(changed)}); it is left alone: "
                    "name another folder with -o, or remove it"
                )
            return
        (run / TRADE_OFF).unlink(missing_ok=True)
        outcome.error = launch(self, member, run)
        outcome.status = "failed" if outcome.error else "done"

    def _judge(self, outcome: Outcome, device: str, seeds: int, resamples: int) -> None:
        run = self.folder / outcome.member.name
        outcome.figures = figures_of(run)
        if outcome.member.recipe.beta_vae is None:
            return
        by, path = {"seeds": seeds, "bootstraps": resamples}, run / TRADE_OFF
        found = read_json(path, "remove it, and the same command judges anew") if path.is_file() else {}
        if found.get("judged_by") != by:
            with self._lock:  # one at a time: it takes all cores
                code = judge_code(run, outcome.member.recipe, device, seeds, resamples)
                found = {"judged_by": by, "figures": code}
                write_json(path, found)
        outcome.code = found["figures"]

    def _write(self) -> dict[str, Any]:
        rows = [self._said[member.name] for member in self.members if member.name in self._said]
        # Runs of an earlier sweep in this folder, over other values, stay known while they are there.
        mine = {member.name for member in self.members}
        rows += [row for name, row in self._said.items() if name not in mine and (self.folder / name).is_dir()]
        found = {"recipe": self.recipe, "keys": self.keys, "runs": rows}
        write_json(self.folder / TABLE, found)
        return found

    def _finish(self) -> dict[str, Any]:
        from mien.report.sweep import sweep_page

        with self._lock:
            found = self._write()
        write_text(self.folder / SHEET, sheet(found))
        sweep_page(found).save(self.folder / PAGE)
        return found


def train_apart(sweep: Sweep, member: Member, run: Path) -> str:
    """`mien train` in a process of its own, so that no run can break another; its output goes to `RUN.log`."""
    resume = ["--resume"] if (run / CONFIG).is_file() else []
    run.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mien", "train", sweep.recipe, *member.overrides, "-o", str(run), *resume]
    environment = dict(os.environ)
    if sweep.threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(sweep.threads))
    log = run.with_name(f"{run.name}.log")
    with open(log, "wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        sweep.children.append(child)
        try:
            code = child.wait()
        finally:
            sweep.children.remove(child)
    if code == 0:
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = next((line.removeprefix("mien: ") for line in reversed(lines) if line.startswith("mien: ")), "")
    end = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return told or f"{end}: {lines[-1].strip() if lines else 'it said nothing'} (see {log})"


def figures_of(run: Path) -> dict[str, Any]:
    """The figures of a run on `val` (else `test`) by name, `age/mae`: estimates where its metrics have them."""
    file = next((path for split in ("val", "test") if (path := run / f"metrics.{split}.json").is_file()), None)
    if file is None:
        return {}
    found: dict[str, Any] = {}
    for name, value in read_json(file, "mien evaluate writes it anew").items():
        parts = {f"{name}/{key}": one for key, one in value.items()} if _holds(value) else {name: value}
        found |= {key: one for key, one in parts.items() if _is_figure(one)}
    return found


def _is_figure(value: Any) -> bool:
    return (isinstance(value, dict) and "value" in value) or (
        isinstance(value, int | float) and not isinstance(value, bool)
    )


def _holds(value: Any) -> bool:
    return isinstance(value, dict) and "value" not in value


def judge_code(run: Path, recipe: Recipe, device: str, seeds: int, resamples: int) -> dict[str, Any]:
    """The trade-off of a trained beta-VAE on `val`, see `evaluation.latents.tradeoff.trade_off`."""
    from mien.evaluation.latents.codes import at_most, code_faces
    from mien.evaluation.latents.tradeoff import place, trade_off
    from mien.metrics.bootstrap import Bootstrap
    from mien.models.beta_vae import BetaVae
    from mien.models.checkpoint import load_renderer

    vae = load_renderer(run, device)
    assert isinstance(vae, BetaVae)
    faces = code_faces(vae, at_most(open_faces(recipe).split("val"), FACES), device)
    boot = Bootstrap(faces.manifest.groups(), resamples)
    return trade_off(place(vae, faces, device), vae, faces, boot, range(seeds))


def sheet(found: dict[str, Any]) -> str:
    """The table as CSV: a run a line, its values, then each figure, with its interval in two columns beside it."""
    runs = found["runs"]
    keys = list(dict.fromkeys(key for row in runs for key in row["values"]))
    figures = [(row["figures"] | {f"code/{name}": value for name, value in row["code"].items()}) for row in runs]
    names = list(dict.fromkeys(name for one in figures for name in one))
    wide = {name for one in figures for name, value in one.items() if isinstance(value, dict)}
    heads = [part for name in names for part in ((name, f"{name} low", f"{name} high") if name in wide else (name,))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["run", *keys, "status", "error", *heads])
    for row, one in zip(runs, figures, strict=True):
        cells: list[Any] = []
        for name in names:
            value = one.get(name)
            estimate = value if isinstance(value, dict) else {"value": value}
            cells += [estimate.get(part) for part in (("value", "low", "high") if name in wide else ("value",))]
        writer.writerow([row["run"], *(row["values"].get(key) for key in keys), row["status"], row["error"], *cells])
    return stream.getvalue()
