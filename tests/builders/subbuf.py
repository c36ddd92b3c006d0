"""Write ring-buffer sub-buffers, the pages of trace_pipe_raw and of trace.dat.

Layout after the kernel's include/linux/ring_buffer.h and kernel/trace/ring_buffer.c: u64 time stamp,
long commit, then records. The length of a record and its time delta share one 32-bit word.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

MISSED_EVENTS = 1 << 31
MISSED_STORED = 1 << 30
TYPE_PADDING = 29
TYPE_TIME_EXTEND = 30
TYPE_TIME_STAMP = 31
DELTA_BITS = 27
MAX_DELTA = (1 << DELTA_BITS) - 1
STAMP_BITS = 59
MAX_SHORT_DATA = 28 * 4

Stamp = Literal["auto", "extend", "absolute"]


@dataclass(frozen=True)
class Layout:
    """What differs between machines: byte order, the kernel's long, and the size of a sub-buffer."""

    byte_order: Literal["<", ">"] = "<"
    long_size: Literal[4, 8] = 8
    page_size: int = 4096

    @property
    def header_size(self) -> int:
        """Bytes before the first record."""
        return 8 + self.long_size

    @property
    def data_size(self) -> int:
        """Bytes left for records."""
        return self.page_size - self.header_size

    def u16(self, value: int) -> bytes:
        return struct.pack(self.byte_order + "H", value)

    def u32(self, value: int) -> bytes:
        return struct.pack(self.byte_order + "I", value)

    def u64(self, value: int) -> bytes:
        return struct.pack(self.byte_order + "Q", value)

    def long(self, value: int) -> bytes:
        return struct.pack(self.byte_order + ("Q" if self.long_size == 8 else "I"), value)

    def record_head(self, type_len: int, delta: int) -> bytes:
        """Pack the word that starts a record: type_len takes the 5 bits that come first in memory."""
        if self.byte_order == "<":
            return self.u32(type_len | delta << 5)
        return self.u32(type_len << DELTA_BITS | delta)


class SubbufWriter:
    """Fill sub-buffers with records; a record that does not fit opens the next one."""

    def __init__(self, layout: Layout | None = None, *, always_long: bool = False) -> None:
        """Start without a page.

        Args:
            layout: of the recording machine.
            always_long: give every record a separate length word, as kernels do that need 8-byte alignment.
        """
        self.layout = layout or Layout()
        self.always_long = always_long
        self._pages: list[bytes] = []
        self._body = bytearray()
        self._page_ts: int | None = None
        self._ts = 0
        self._missed: int | None = None
        self._missed_pending = False

    def data(self, ts: int, payload: bytes, *, stamp: Stamp = "auto", long_form: bool = False) -> None:
        """Append a record.

        Args:
            ts: raw time stamp of the trace clock.
            payload: common fields and event fields.
            stamp: "extend" or "absolute" puts such a record before it even where a delta would do.
            long_form: keep the length in a word of its own even where type_len could hold it.
        """
        long_form = long_form or self.always_long or len(payload) > MAX_SHORT_DATA or not payload
        body = payload + bytes(-len(payload) % 4)
        if long_form:
            body = self.layout.u32(4 + len(payload)) + body
        self._room(ts, 8 + 4 + len(body))
        delta = self._advance(ts, stamp)
        self._body += self.layout.record_head(0 if long_form else len(body) // 4, delta) + body

    def discard(self, ts: int, size: int) -> None:
        """Append a discarded record of ``size`` bytes in all (a multiple of 4, at least 8)."""
        self._room(ts, 8 + size)
        delta = self._advance(ts, "auto")
        if delta == 0:  # would read as "rest of the page is empty"; the kernel writes 1 too
            delta = 1
            self._ts += 1
        self._body += (
            self.layout.record_head(TYPE_PADDING, delta) + self.layout.u32(size - 4) + bytes(size - 8)
        )

    def extend(self, ts: int) -> None:
        """Append a time extend record with no event behind it."""
        self._room(ts, 8)
        self._stamp(TYPE_TIME_EXTEND, ts - self._ts)
        self._ts = ts

    def missed(self, count: int | None = None) -> None:
        """Say that records were lost here: the next sub-buffer carries the flag, and the count if given."""
        self.end_page()
        self._missed, self._missed_pending = count, True

    def end_page(self, *, padding: bool = False) -> None:
        """Close the current sub-buffer.

        Args:
            padding: fill it up with one padding record, committed like the rest.
        """
        if self._page_ts is None:
            return
        left = self._capacity() - len(self._body)
        if padding and left >= 8:
            self._padding(1, left)
        self._pages.append(self._page())
        self._body.clear()
        self._page_ts = None
        self._missed, self._missed_pending = None, False

    def finish(self) -> bytes:
        """Return all sub-buffers, one after the other."""
        self.end_page()
        return b"".join(self._pages)

    def _padding(self, delta: int, size: int) -> None:
        self._body += (
            self.layout.record_head(TYPE_PADDING, delta) + self.layout.u32(size - 4) + bytes(size - 8)
        )

    def _page(self) -> bytes:
        assert self._page_ts is not None
        commit = len(self._body)
        tail = b""
        if self._missed_pending:
            commit |= MISSED_EVENTS
            if self._missed is not None:
                commit |= MISSED_STORED
                tail = self.layout.long(self._missed)
        page = self.layout.u64(self._page_ts) + self.layout.long(commit) + bytes(self._body) + tail
        return page + bytes(self.layout.page_size - len(page))

    def _capacity(self) -> int:
        stored = self._missed_pending and self._missed is not None
        return self.layout.data_size - (self.layout.long_size if stored else 0)

    def _room(self, ts: int, size: int) -> None:
        """Open a sub-buffer at ``ts`` unless the current one has ``size`` bytes left."""
        if self._page_ts is not None and len(self._body) + size > self._capacity():
            self.end_page()
        if self._page_ts is None:
            if size > self._capacity():
                msg = f"a record of {size} bytes does not fit a sub-buffer of {self.layout.page_size}"
                raise ValueError(msg)
            self._page_ts = self._ts = ts

    def _advance(self, ts: int, stamp: Stamp) -> int:
        """Move the clock to ``ts``, with a record of its own where needed; return the delta left."""
        delta = ts - self._ts
        if stamp == "absolute" or delta < 0:
            self._stamp(TYPE_TIME_STAMP, ts & ((1 << STAMP_BITS) - 1))
            delta = 0
        elif stamp == "extend" or delta > MAX_DELTA:
            self._stamp(TYPE_TIME_EXTEND, delta)
            delta = 0
        self._ts = ts
        return delta

    def _stamp(self, type_len: int, value: int) -> None:
        self._body += self.layout.record_head(type_len, value & MAX_DELTA)
        self._body += self.layout.u32(value >> DELTA_BITS)
