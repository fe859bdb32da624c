"""The same job on Ray Data: shards go to actors, each of which loads its model once and writes what it finishes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from mien.errors import MienError, need
from mien.jobs.workers import Elsewhere, Engine, Here, Process


def run_on_ray(
    do: Callable[[int, Here | Elsewhere], None], process: Process[Any], engine: Engine, pending: list[int]
) -> Iterator[int]:
    """Let `do` write each of the shards `pending`, and yield their numbers as they are finished, in any order.

    `do` gets a shard's number and a worker that does `process`. Ray is started here, or joined at `engine.address`; the
    job's folder and the pictures must then have the same paths on all its machines.

    Raises:
        MienError: Ray is not installed, or no cluster answers at the address.
    """
    ray = need("ray", "ray")
    need("ray.data", "ray")
    if not pending:
        return
    # Ray would report its use to its makers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        cores = None if engine.address else max(engine.workers, 1)
        try:
            ray.init(engine.address, num_cpus=cores, include_dashboard=None, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise MienError(f"no Ray cluster answers at {engine.address}: {error}") from None
    try:
        # What it says of its plans and progress is no news to who started a job of ours.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        context.raise_original_map_exception = True  # a mistake of the user's keeps its own words
        shared = ray.put((do, process, engine.patience))
        shards = ray.data.from_items([{"number": number} for number in pending], override_num_blocks=len(pending))
        finished = shards.map_batches(
            _Shards,
            fn_constructor_args=(shared,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=max(engine.workers, 1)),
        )
        for row in finished.iter_rows():
            yield int(row["number"])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MienError):
            raise error.cause from None
        raise
    finally:
        if started:
            ray.shutdown()


class _Shards:
    """An actor: does one shard after another with one worker."""

    def __init__(self, shared: Any) -> None:
        import ray

        self.do, process, patience = ray.get(shared)
        # In a process of its own: Ray starts an actor that died again, and asks it for the same for ever.
        self.worker = Elsewhere(process, patience)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for number in batch["number"].tolist():
            self.do(number, self.worker)
        return batch
