"""The record of a thread in the fold: where in it stands what `threads` counts. What lies behind is its caller's."""

from __future__ import annotations

UNKNOWN, RUNNING, RUNNABLE, SLEEP, BLOCKED = range(5)
"""What a thread is doing, as the sched events tell it."""

TID, FIRST, LAST, CPU, CPUS, GONE, STATE, SINCE = range(8)
"""``CPUS`` has a bit for each CPU below ``threads.BITS`` on which it was seen; it is in ``STATE`` since ``SINCE``."""

HOG, HOG_WAIT, OUT_TO, OUT_AT, OUT_CPU = range(8, 13)
"""The thread that had the CPU for all of its longest wait, and how long; to whom it lost its CPU, and when."""

METERS, N_METERS = 13, 6
"""Its meters: ns in each state but unknown, at ``CLOCK`` + state, then ns in the guest, and hlt exits."""

CLOCK, GUEST, HLTS = METERS - RUNNING, METERS + 4, METERS + 5

COUNTED = METERS + N_METERS
"""What the meters counted since a mark."""

MARK = 1 + N_METERS
"""Fields of a mark: an instant, and the meters then."""

N_FIELDS = COUNTED + N_METERS
"""Fields of the record that are not the caller's."""
