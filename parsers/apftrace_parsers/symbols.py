"""Functions by address: the kallsyms that a recording brings along.

    ffffffff8107d280 T kvm_async_pf_task_wait_schedule
    ffffffffc0a51230 t async_pf_execute\t[kvm]

A kernel has some 200,000 symbols, and few are ever asked for: names are searched for in the text as it is.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_SIGN = 1 << 63
_ADDRESS = re.compile(rb"^ *([\da-f]{8,16}) ", re.MULTILINE)


class Kallsyms:
    """Symbols of one kernel; a `base.Symbols`.

    Args:
        read: gives the text of /proc/kallsyms; called once, and not before it is needed.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read

    @cached_property
    def _text(self) -> bytes:
        return self._read()

    @cached_property
    def _is_real(self) -> bool:
        # To those without CAP_SYSLOG every address reads as 0 (kernel.kptr_restrict).
        return any(int(found[1], 16) for found in _ADDRESS.finditer(self._text))

    def find(self, name: str) -> tuple[int, ...]:
        """Return the addresses of the functions of this name, compiler's clones of it too, as signed values."""
        pattern = (
            rb"^ *([\da-f]{8,16}) [tTwW] " + re.escape(name.encode()) + rb"(?:\.(?!cold)[\w.]+)?(?=\s|\Z)"
        )
        found = {int(address, 16) for address in re.findall(pattern, self._text, re.MULTILINE)}
        return tuple(sorted(a - 2 * _SIGN if a & _SIGN else a for a in found - {0}))

    def covers(self, value: int) -> bool:
        """Say whether there are symbols with addresses."""
        return self._is_real


def no_symbols() -> Kallsyms:
    """Return the symbols of a source that brings none."""
    return Kallsyms(bytes)
