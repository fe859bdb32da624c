"""A graphics card that is not there: tensors whose numbers a processor holds, and which refuse what a card would.

In `plugged` the device "meta" is one, whatever torch says of it. What mixes its tensors with a processor's, asks for
their memory, or wants double precision of it, which Apple's cards have not, fails as it would where there is a card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CARD = torch.device("meta")
#: What copies from one device to another, what takes places from the processor too, and what takes not even a number
#: (a tensor without dimensions) from it.
COPIES = ("aten::copy_", "aten::_to_copy")
PLACES = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
STRICT = ("aten::cat", "aten::stack")


class CardError(RuntimeError):
    """What a card would have refused."""


class OnCard(Tensor):
    """A tensor of the card; `held` has its numbers."""

    held: Tensor
    is_meta = False

    @staticmethod
    def __new__(cls, held: Tensor) -> OnCard:
        if held.dtype == torch.float64:
            raise CardError("double precision on a card that has none")
        about = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, device=CARD, **about)  # type: ignore[attr-defined,no-any-return]

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.held.tolist()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:
        return self.held.new_tensor(data, dtype=dtype).to(CARD)


class _Plugged(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _done(func, args, kwargs or {})


def _done(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives, computed by the processor."""
    name = func._schema.name
    tensors = [one for part in (*args, *kwargs.values()) for one in _listed(part) if isinstance(one, Tensor)]
    there = any(isinstance(one, OnCard) for one in tensors)
    if there and name not in COPIES:
        _refuse(name, args, tensors)
    told = kwargs.get("device")
    stays = there if told is None else torch.device(told) == CARD
    if stays and kwargs.get("generator") is not None:
        raise CardError(f"{name}: a generator of the processor's for numbers on a card")
    more = kwargs if told is None else {**kwargs, "device": "cpu"}
    found = func(*(_held(one) for one in args), **{key: _held(one) for key, one in more.items()})
    changed = [given for about, given in zip(func._schema.arguments, args, strict=False) if about.is_write]
    if len(changed) == 1 and func._schema.returns:
        return changed[0]
    return _put(found) if stays else found


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


def _held(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_held(one) for one in value]
    return value.held if isinstance(value, OnCard) else value


def _put(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_put(one) for one in value)
    return OnCard(value) if isinstance(value, Tensor) else value


def _refuse(name: str, args: Any, tensors: list[Tensor]) -> None:
    if name in PLACES and isinstance(args[0], OnCard):
        return
    strays = [one for one in tensors if not isinstance(one, OnCard) and (one.ndim or name in (*STRICT, *PLACES))]
    if strays:
        raise CardError(f"{name}: a card's tensors and a processor's, {[tuple(one.shape) for one in strays]}")


@contextmanager
def plugged() -> Iterator[torch.device]:
    """Within it there is a card; it is the device that is given."""
    autocast: Callable[..., Any] = torch.autocast

    def cast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return autocast("cpu" if device_type == CARD.type else device_type, *args, **kwargs)

    def carried(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`torch.tensor` or its like: what torch makes on this device at once has no numbers."""

        def made(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
            found = make(data, **kwargs)
            return found if device is None else found.to(device)

        return made

    inside: list[Any] = []

    def enter(self: Any) -> None:
        inside.append(torch.no_grad())
        inside[-1].__enter__()

    with (
        patch.object(torch, "autocast", cast),
        # In the true one torch hands operations over before it has taken them apart.
        patch.object(torch.inference_mode, "__enter__", enter),
        patch.object(torch.inference_mode, "__exit__", lambda self, *raised: inside.pop().__exit__(*raised)),
        patch.object(torch, "is_inference_mode_enabled", lambda: bool(inside)),
        patch.object(torch, "tensor", carried(torch.tensor)),
        patch.object(torch, "as_tensor", carried(torch.as_tensor)),
        patch.object(torch.accelerator, "synchronize", lambda device: None),
        _Plugged(),
    ):
        yield CARD
