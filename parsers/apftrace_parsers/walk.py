"""A pass over the pages of all lanes: windows of memory, filled over and over while the walker works.

Memory is bounded by WINDOWS_BUDGET whatever the file, as far as the smallest windows of its lanes allow: with more
CPUs each gets a smaller one. Pages that lie in the file as they are get read with pread by the thread that walks:
to hand a window over costs more than to read it. A mapping would end the process when its file is cut meanwhile.
Packed pages are unpacked ahead by threads where there are enough of them.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from mmap import PAGESIZE, mmap
from typing import TYPE_CHECKING, Protocol, Self

from apftrace_parsers import subbuf
from apftrace_parsers.base import Loss
from apftrace_parsers.importlog import ImportLog
from apftrace_parsers.integers import NO_NS
from apftrace_parsers.landmarks import Landmarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apftrace_parsers.base import PassResult
    from apftrace_parsers.clock import Bounds, Clock, Piece
    from apftrace_parsers.landmarks import Mark

WINDOWS_BUDGET = 32 << 20
LARGEST_WINDOW = 1 << 19
"""With few lanes, what is read stays in the cache of a core until it is walked."""
LARGEST_AHEAD = 1 << 20
"""Of a window of packed pages, which may be filled ahead: larger, for each costs a handing over."""
THREADS_FROM = 4 << 20
"""Bytes of packed pages from which on filling ahead pays for its threads."""
N_THREADS = 2
MAX_LOSSES = 10_000
"""Gaps that are listed one by one; later ones of a CPU are joined, so that memory stays bounded."""

_DAMAGE = (
    "has a time stamp out of range",
    "claims more data than a page holds",
    "holds a record that cannot be",
    "has nothing but zeros for a header",
    "is out of the order of time",
)


class Pages(Protocol):
    """Hands out the pages of a lane in order."""

    hole: bool
    """Whether pages before those of the last fill could not be read."""
    cut: bool
    """Whether the pages broke off before their end."""

    beyond: int
    """Bytes of whole pages that stand behind those of the last fill already, to be looked at."""

    def fill(self, window: memoryview) -> int:
        """Put the next whole pages into a window, which has room for one more; return their bytes, 0 at the end."""

    def mark(self) -> Mark:
        """Return where the next fill begins."""

    def resume(self, mark: Mark) -> None:
        """Let the next fill begin elsewhere."""


class Lane(Protocol):
    """The buffer of one CPU in one instance."""

    @property
    def cpu(self) -> int:
        """Its CPU."""

    @property
    def instance(self) -> str:
        """Its buffer instance."""

    @property
    def page_size(self) -> int:
        """Bytes of a sub-buffer."""

    @property
    def size(self) -> int:
        """Bytes in the file."""

    @property
    def least(self) -> int:
        """Bytes that a window needs at least."""

    @property
    def is_packed(self) -> bool:
        """Whether its pages have to be unpacked."""

    def pages(self, log: ImportLog) -> Pages:
        """Start to read."""

    def place(self, page: int) -> str:
        """Say where a page is, for notes."""


@dataclass(frozen=True)
class Ring:
    """The ring buffers of a source.

    Attributes:
        lanes: in order of instance, then CPU: the order in which equal stamps are delivered.
        big: pages are big endian.
        long_size: bytes of the kernel's long.
        clock: makes ns of stamps.
        tid_at: offset of common_pid in records.
        landmarks: per lane; none before a whole pass has ended that met no damage.
    """

    lanes: tuple[Lane, ...]
    big: bool
    long_size: int
    clock: Clock
    tid_at: int
    landmarks: list[Landmarks] = field(default_factory=list, compare=False)

    @property
    def instances(self) -> tuple[str, ...]:
        """Instances of the lanes, in their order."""
        return tuple(dict.fromkeys(lane.instance for lane in self.lanes))


class Pass:
    """One pass: a walker with all its lanes, and their windows. To be used in a ``with`` block.

    Args:
        ring: what to walk.
        start_ns: first time wanted, or null.
        end_ns: last time wanted, or null.
    """

    def __init__(self, ring: Ring, start_ns: int | None = None, end_ns: int | None = None) -> None:
        self.ring = ring
        self.log = ImportLog()
        self.bounded = start_ns is not None or end_ns is not None
        # One log a lane: threads would write into one in any order.
        self._logs = [ImportLog() for _ in ring.lanes]
        self._pages = [lane.pages(log) for lane, log in zip(ring.lanes, self._logs, strict=True)]
        # A pass between bounds is mostly a look at a few pages: to fill further ahead would be in vain.
        packed = sum(lane.size for lane in ring.lanes if lane.is_packed)
        fills_ahead = packed >= THREADS_FROM and not self.bounded
        self._threads = ThreadPoolExecutor(N_THREADS) if fills_ahead else None
        self._fills_ahead = [fills_ahead and lane.is_packed for lane in ring.lanes]
        self._sizes = _window_sizes(ring.lanes, bounded=self.bounded)
        # One window is walked while the other is filled.
        self._windows = 2 if fills_ahead else 1
        # Anonymous pages: what small traces never touch costs nothing.
        self._rooms = [size + lane.page_size for size, lane in zip(self._sizes, ring.lanes, strict=True)]
        data = mmap(-1, max(self._windows * sum(self._rooms), PAGESIZE))
        self._view = memoryview(data)
        self._at = [self._windows * sum(self._rooms[:i]) for i in range(len(self._rooms))]
        self._turn = [0] * len(self._sizes)
        self._ahead: list[Future[tuple[int, Mark]] | None] = [None] * len(self._sizes)
        self._page = [0] * len(self._sizes)
        self._landmarks = [Landmarks() for _ in ring.lanes]
        self._ended = [False] * len(self._sizes)
        instances = ring.instances
        self.instance_of = [instances.index(lane.instance) for lane in ring.lanes]
        self.walker = subbuf.Walker(
            data,
            [lane.cpu for lane in ring.lanes],
            self.instance_of,
            [lane.page_size for lane in ring.lanes],
            big=ring.big,
            long_size=ring.long_size,
        )
        self._set_clock(start_ns, end_ns)
        self._losses: list[list[Loss]] = [[] for _ in ring.lanes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._threads:
            self._threads.shutdown(cancel_futures=True)

    def _set_clock(self, start_ns: int | None, end_ns: int | None) -> None:
        clock = self.ring.clock
        self.walker.stamps.set_clock(clock.mult, clock.shift, clock.offset)
        pieces: list[tuple[int, ...]] = []
        spans = []
        bounds: dict[tuple[Piece, ...], Bounds] = {}
        for i, lane in enumerate(self.ring.lanes):
            own = clock.pieces_of(lane.cpu)
            spans.append((len(pieces), len(pieces) + len(own)))
            pieces += [(p.first, p.at, p.offset, p.rise, p.run, p.scaling, p.fraction) for p in own]
            if own not in bounds:
                bounds[own] = clock.raw_bounds(lane.cpu, start_ns, end_ns)
            self.walker.set_bounds(i, *bounds[own])
            self._skip(i, bounds[own][0])
        if pieces:
            self.walker.stamps.set_pieces(pieces, spans)

    def _skip(self, lane: int, stamp: int) -> None:
        """Let a lane begin shortly before a raw stamp, where an earlier pass has shown where that is."""
        place = self.ring.landmarks[lane].before(stamp) if self.bounded and self.ring.landmarks else None
        if place:
            self._page[lane], mark = place
            self._pages[lane].resume(mark)
            self.walker.skip_to(lane, self._page[lane])

    def refill(self, lane: int) -> bool:
        """Give a lane its next window; say whether there was one."""
        if self._ended[lane] or self.walker.is_past_end(lane):
            return False
        future = self._ahead[lane]
        turn = self._turn[lane]
        size, mark = future.result() if future else self._fill(lane, turn)
        if self._pages[lane].hole:
            self.walker.break_off(lane)
        if not size:
            self._ended[lane] = True
            return False
        at = self._at[lane] + turn * self._rooms[lane]
        self.walker.feed(lane, at, size, self._pages[lane].beyond)
        if not self.bounded:
            self._landmarks[lane].note(self.walker.stamp_at(at), self._page[lane], mark)
        self._page[lane] += size // self.ring.lanes[lane].page_size
        self._turn[lane] = (turn + 1) % self._windows
        if self._threads and self._fills_ahead[lane]:
            self._ahead[lane] = self._threads.submit(self._fill, lane, self._turn[lane])
        return True

    def _fill(self, lane: int, turn: int) -> tuple[int, Mark]:
        at = self._at[lane] + turn * self._rooms[lane]
        mark = self._pages[lane].mark()
        return self._pages[lane].fill(self._view[at : at + self._rooms[lane]]), mark

    def take_losses(self) -> None:
        """Take over the losses that the walker has found so far."""
        for lane, count, after, before in self.walker.take_losses():
            loss = Loss(
                self.ring.lanes[lane].cpu,
                self.ring.lanes[lane].instance,
                None if count < 0 else count,
                None if after == NO_NS else after,
                before,
            )
            own = self._losses[lane]
            if len(own) < MAX_LOSSES:
                own.append(loss)
            else:
                own[-1] = _joined(own[-1], loss)
                self.log.count("gaps joined to the one before, for there are too many", 1)

    def finish(self, result: PassResult) -> dict[tuple[int, int], int]:
        """Fill in what the pass has found; return hits by (instance number, event id)."""
        self.take_losses()
        for i, lane in enumerate(self.ring.lanes):
            ends = self.walker.ends(i)
            if ends:
                _widen(result, lane.cpu, *ends)
            if self._pages[i].cut or self._pages[i].hole or self.walker.ends_in_gap(i):
                after = ends[1] if ends and not self.walker.ends_disordered(i) else None
                self._losses[i].append(Loss(lane.cpu, lane.instance, None, after, None))
            result.losses += self._losses[i]
        for log in self._logs:
            self.log.add(log)
        self._note_damage()
        result.notes += self.log.sentences()
        if not self.bounded and not self.log.sentences():
            # Where pages are damaged, what is seen of them depends on where a pass begins.
            self.ring.landmarks[:] = self._landmarks
        return {
            (number, event): n
            for number in range(len(self.ring.instances))
            for event, n in self.walker.hits(number).items()
        }

    def _note_damage(self) -> None:
        located = [0] * len(_DAMAGE)
        for kind, lane, page, at in self.walker.damage_places():
            located[kind] += 1
            place = self.ring.lanes[lane].place(page)
            self.log.note(
                "damaged pages",
                f"CPU {self.ring.lanes[lane].cpu}: the page at {place} "
                f"{_DAMAGE[kind]} at byte {at}; the rest of it is dropped",
            )
        for kind, n in enumerate(self.walker.damage_counts()):
            self.log.count("damaged pages", n - located[kind])
        self.log.count("fields or records shorter than their format", self.walker.short_records)
        self.log.count("records older than the one before them on their CPU", self.walker.backwards)


def _window_sizes(lanes: Sequence[Lane], *, bounded: bool) -> list[int]:
    share = WINDOWS_BUDGET // (2 * max(len(lanes), 1))
    sizes = []
    for lane in lanes:
        largest = LARGEST_AHEAD if lane.is_packed and not bounded else LARGEST_WINDOW
        size = min(max(share, lane.least), largest, max(lane.size, lane.least))
        sizes.append(max(size - size % lane.page_size, lane.least))
    return sizes


def _joined(one: Loss, other: Loss) -> Loss:
    count = None if one.count is None or other.count is None else one.count + other.count
    return Loss(one.cpu, one.instance, count, one.after_ns, other.before_ns)


def _widen(result: PassResult, cpu: int, first: int, last: int) -> None:
    result.cpu_first_ns[cpu] = min(first, result.cpu_first_ns.get(cpu, first))
    result.cpu_last_ns[cpu] = max(last, result.cpu_last_ns.get(cpu, last))
    result.first_ns = first if result.first_ns is None else min(first, result.first_ns)
    result.last_ns = last if result.last_ns is None else max(last, result.last_ns)
