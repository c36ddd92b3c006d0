"""The JavaScript that draws the charts: Vega, Vega-Lite and vega-embed as one script, from vl-convert.

vl-convert starts a JavaScript engine to make it, which takes more than a second, so the text is kept in a
file per user. The file carries its own digest and is made anew when that does not match.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from apftrace_reports.base import replace

_ENTRY = "window.vegaEmbed = vegaEmbed;"
_MARK = "// apftrace chart bundle sha256 "


def chart_bundle() -> str:
    """Return the script; it holds no ``</script`` and defines ``vegaEmbed``."""
    cached = _cache_file()
    script = _read(cached)
    if script is None:
        script = _make()
        with contextlib.suppress(OSError):  # a home that cannot be written costs time, not the report
            _keep(cached, script)
    return script


def _cache_file() -> Path:
    # vl-convert's version decides the versions of all that is inside, the entry what of it is kept.
    key = f"{version('vl-convert-python')}-{_vega_lite()}-{_digest(_ENTRY)[:8]}"
    return _cache_dir() / f"vega-{key}.js"


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a path that is not absolute.
    return (Path(base) if Path(base).is_absolute() else Path(os.path.expanduser("~")) / ".cache") / "apftrace"  # noqa: PTH111


def _vega_lite() -> str:
    # The Vega-Lite that altair writes for, as vl-convert names it: ``6.4`` for ``v6.4.1``.
    from altair.vegalite.v6.schema import SCHEMA_VERSION

    return ".".join(SCHEMA_VERSION.lstrip("v").split(".")[:2])


def _read(path: Path) -> str | None:
    try:
        head, _, script = path.read_bytes().decode().partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return script if head == _MARK + _digest(script) else None


def _keep(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(f"{_MARK}{_digest(script)}\n{script}".encode(), path)


def _make() -> str:
    import vl_convert

    made = vl_convert.javascript_bundle(_ENTRY, vl_version=_vega_lite())
    # The script ends where the parser sees this, whatever JavaScript thinks of it.
    return made.replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return hashlib.sha256(script.encode()).hexdigest()
