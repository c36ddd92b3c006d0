"""Two cores for one analysis: make the next batches while one is used, or frames beside each other."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

_AHEAD = 3
"""Batches in hand: what one takes longer to make, or to use, than the next evens out."""


def made_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items, made in a second thread while those before them are used.

    Worth it where making or using an item lets go of the GIL, as decoding and writing do.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, source, None) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, source, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def side_by_side(make: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """Return what is made of each item, two at a time; worth it where ``beside`` is."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, items))


def beside(make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Begin to make something in a second thread; the future's ``result`` waits for it.

    Worth it where both threads let go of the GIL, as polars does.
    """
    pool = ThreadPoolExecutor(1)
    made = pool.submit(make, *args, **kwargs)
    pool.shutdown(wait=False)
    return made
