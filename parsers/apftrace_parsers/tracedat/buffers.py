"""The pages of a CPU, plain or in compressed chunks, window by window.

A compressed CPU buffer is {u32 number of chunks} and per chunk {u32 compressed size, u32 size, data}
(trace-cmd.dat.v7(5): BUFFER SECTION). trace-cmd puts PAGES_IN_CHUNK pages into a chunk.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apftrace_parsers.base import Loss
from apftrace_parsers.tracedat.compression import BlockError, codec
from apftrace_parsers.tracedat.header import MAX_SUBBUF
from apftrace_parsers.tracedat.section import read_section_header

if TYPE_CHECKING:
    from apftrace_parsers.cursor import FileCursor
    from apftrace_parsers.importlog import ImportLog
    from apftrace_parsers.landmarks import Mark
    from apftrace_parsers.tracedat.meta import Meta
    from apftrace_parsers.tracedat.options import Buffer, CpuData
    from apftrace_parsers.walk import Lane, Pages

MAX_CHUNK_PAGES = 16
"""trace-cmd writes 10 pages per chunk (PAGES_IN_CHUNK in trace-compress.c); more than this is damage."""
MAX_CHUNKS = 1 << 30
"""One chunk of every CPU is in memory at a time: 16 pages of 64 KiB from 1,000 CPUs are less than this."""
CHUNK_HEAD = 8
MAX_CPU = 1 << 16
"""Well above CONFIG_NR_CPUS of any architecture."""


@dataclass(frozen=True)
class PlainLane:
    """Pages as the kernel wrote them."""

    cpu: int
    instance: str
    page_size: int
    fd: int
    offset: int
    size: int
    is_packed = False

    @property
    def least(self) -> int:
        """Bytes that a window needs at least."""
        return self.page_size

    def pages(self, log: ImportLog) -> Pages:
        """Start to read."""
        return PlainPages(self, log)

    def place(self, page: int) -> str:
        """Say where a page is."""
        return f"offset {self.offset + page * self.page_size}"


class PlainPages:
    """Reads a PlainLane."""

    def __init__(self, lane: PlainLane, log: ImportLog) -> None:
        self._lane = lane
        self._log = log
        self._done = 0
        self.hole = False
        self.cut = False
        self.beyond = 0

    def fill(self, window: memoryview) -> int:
        """Put the next whole pages into a window, which has room for one more; return their bytes, 0 at the end."""
        lane = self._lane
        self.beyond = 0
        want = self._whole(len(window) - lane.page_size)
        if want <= 0 or self.cut:
            return 0
        got = os.preadv(lane.fd, [window[: self._whole(len(window))]], lane.offset + self._done)
        if got >= want:
            self.beyond = (got - want) // lane.page_size * lane.page_size
            got = want
        else:
            self.cut = True
            missing = lane.size - self._done - got
            self._log.note(
                "cut buffers",
                f"CPU {lane.cpu}: the file ends at offset {lane.offset + self._done + got}, "
                f"{missing} bytes of its pages are missing",
            )
            got -= got % lane.page_size
        self._done += got
        return got

    def _whole(self, room: int) -> int:
        # Bytes of the whole pages that come next, as far as there is room for them.
        page = self._lane.page_size
        return min(room, self._lane.size - self._done) // page * page

    def mark(self) -> Mark:
        """Return where the next fill begins: bytes of the lane."""
        return (self._done,)

    def resume(self, mark: Mark) -> None:
        """Let the next fill begin elsewhere."""
        (self._done,) = mark


@dataclass(frozen=True)
class ChunkLane:
    """Pages in compressed chunks."""

    cpu: int
    instance: str
    page_size: int
    fd: int
    offset: int
    size: int
    codec: str
    big: bool
    max_chunk: int
    is_packed = True

    @property
    def least(self) -> int:
        """Bytes that a window needs at least: the largest chunk has to fit, whichever it is."""
        return self.max_chunk

    def pages(self, log: ImportLog) -> Pages:
        """Start to read."""
        return ChunkPages(self, log)

    def place(self, page: int) -> str:
        """Say where a page is."""
        return f"page {page} of the chunks from offset {self.offset}"

    def chunk_head(self, at: int) -> tuple[int, int]:
        """Return compressed size and size of the chunk at an offset; zeros behind the end of the file."""
        head = os.pread(self.fd, CHUNK_HEAD, at).ljust(CHUNK_HEAD, b"\0")
        packed, size = struct.unpack(">II" if self.big else "<II", head)
        return packed, size


class ChunkPages:
    """Reads a ChunkLane."""

    def __init__(self, lane: ChunkLane, log: ImportLog) -> None:
        self._lane = lane
        self._log = log
        self._unpack = codec(lane.codec)
        head = os.pread(lane.fd, 4, lane.offset)
        self._left = int.from_bytes(head, "big" if lane.big else "little")
        self._at = lane.offset + 4
        # trace-cmd 3.1.6 leaves the count of chunks out of the size that it notes.
        self._end = lane.offset + 4 + lane.size
        self.hole = False
        self.cut = len(head) < 4
        self.beyond = 0

    def fill(self, window: memoryview) -> int:
        """Put the next chunks into a window; return their bytes, 0 at the end."""
        used = 0
        self.hole = False
        while self._left and not self.cut:
            packed, size = self._lane.chunk_head(self._at)
            if not self._is_sane(packed, size):
                break
            if used + size > len(window):
                break
            data = os.pread(self._lane.fd, packed, self._at + CHUNK_HEAD)
            if len(data) < packed:
                self._break("is cut off by the end of the file")
                break
            try:
                window[used : used + size] = self._unpack(data, size)
            except BlockError as error:
                if used:
                    break
                self.hole = True
                self._log.note(
                    "damaged chunks",
                    f"CPU {self._lane.cpu}: the chunk at offset {self._at} is damaged ({error}); "
                    f"its {size // self._lane.page_size} pages are lost",
                )
            else:
                used += size
            self._at += CHUNK_HEAD + packed
            self._left -= 1
        return used

    def mark(self) -> Mark:
        """Return where the next fill begins: offset of its first chunk, and how many chunks are left."""
        return self._at, self._left

    def resume(self, mark: Mark) -> None:
        """Let the next fill begin elsewhere."""
        self._at, self._left = mark

    def _is_sane(self, packed: int, size: int) -> bool:
        lane = self._lane
        if self._at + CHUNK_HEAD + packed > self._end or not packed:
            self._break(f"claims {packed} compressed bytes of {max(self._end - self._at - CHUNK_HEAD, 0)}")
        elif not size or size > lane.max_chunk or size % lane.page_size:
            self._break(f"claims {size} bytes, not up to {lane.max_chunk} in pages of {lane.page_size}")
        else:
            return True
        return False

    def _break(self, problem: str) -> None:
        self.cut = True
        lane = self._lane
        self._log.note(
            "broken chunks",
            f"CPU {lane.cpu}: the chunk at offset {self._at} {problem}; {self._left} chunks are not read",
        )


def lanes_of(cursor: FileCursor, meta: Meta, fd: int, log: ImportLog) -> tuple[list[Lane], list[Loss]]:
    """Return the lanes that hold pages, the top instance first, CPUs ascending; and those that are lost.

    Lanes that overlap would let a small file claim endless records: only the first of them is kept.
    """
    lanes: list[Lane] = []
    lost: list[Loss] = []
    taken: list[tuple[int, int]] = []
    memory = 0
    for buffer in sorted(meta.options.buffers, key=lambda b: bool(b.name)):
        if buffer.text or not _is_sane(buffer, log):
            continue
        chunked = meta.header.version > 6 and read_section_header(cursor, buffer.offset).compressed
        for data in sorted(buffer.cpus, key=lambda d: d.cpu):
            if not data.size:
                continue
            problem = _problem(data, cursor, taken)
            if memory > MAX_CHUNKS:
                problem = f"the chunks of all CPUs claim more than {MAX_CHUNKS} bytes at a time"
            if problem:
                lost.append(Loss(data.cpu, buffer.name, None, None, None))
                log.note(
                    "unread buffers",
                    f"CPU {data.cpu}, instance {buffer.name or 'top'!r}: {problem}, not read",
                )
            elif chunked:
                lane = _chunk_lane(data, buffer, meta, fd)
                memory += lane.least
                lanes.append(lane)
            else:
                lanes.append(PlainLane(data.cpu, buffer.name, buffer.page_size, fd, data.offset, data.size))
    if meta.cut:
        seen = {lane.cpu for lane in lanes if not lane.instance}
        unseen = [cpu for cpu in range(min(meta.options.cpu_count or 0, MAX_CPU)) if cpu not in seen]
        lost += [Loss(cpu, "", None, None, None) for cpu in unseen]
    return lanes, lost


def _is_sane(buffer: Buffer, log: ImportLog) -> bool:
    if 32 <= buffer.page_size <= MAX_SUBBUF and buffer.page_size % 4 == 0:
        return True
    log.note(
        "unread buffers",
        f"instance {buffer.name or 'top'!r}: sub-buffers of {buffer.page_size} bytes, not read",
    )
    return False


def _problem(data: CpuData, cursor: FileCursor, taken: list[tuple[int, int]]) -> str:
    span = (data.offset, data.offset + data.size)
    cursor.seek(data.offset)
    if not cursor.remaining:
        return f"its data at offset {data.offset} lies behind the end of the file"
    if data.cpu > MAX_CPU:
        return f"no machine has a CPU {data.cpu}"
    i = bisect(taken, span)
    if (i and taken[i - 1][1] > span[0]) or (i < len(taken) and taken[i][0] < span[1]):
        return f"its data at offset {data.offset} overlaps that of another"
    taken.insert(i, span)
    return ""


def _chunk_lane(data: CpuData, buffer: Buffer, meta: Meta, fd: int) -> ChunkLane:
    # Chunks of all instances are measured in sub-buffers of the top one.
    page = max(meta.header.page_size, buffer.page_size)
    return ChunkLane(
        data.cpu,
        buffer.name,
        buffer.page_size,
        fd,
        data.offset,
        data.size,
        meta.header.codec,
        meta.header.big,
        MAX_CHUNK_PAGES * page,
    )
