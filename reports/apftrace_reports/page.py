"""What every page of ours is made with: templates that escape, and a policy that admits nothing but themselves."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from apftrace_reports.data import phase_label
from apftrace_reports.units import count, duration, instant, plural, share

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup


def content_policy(style: str, scripts: list[str]) -> str:
    """Return a Content-Security-Policy that admits exactly these texts and no request at all."""
    allowed = " ".join(_source_hash(script) for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def environment(unit: str) -> jinja2.Environment:
    """Return the templates, with filters that show durations in ``unit``."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("apftrace_reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": count,
        "breakable": _breakable,
        "duration": lambda value: duration(value, unit),
        "lasted": lambda life: life.lasted(unit),
        "instant": lambda value: instant(value, unit),
        "phase_label": phase_label,
        "plural": plural,
        "share": share,
    }
    return made


def source(templates: jinja2.Environment, name: str) -> str:
    """Return the text of a template that is none: a style sheet or a script."""
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def raw(text: str) -> Markup:
    """Return text that goes into a page as it is."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own files and the chart library, never the trace


def bundle() -> str:
    """Return the script that draws the charts."""
    from apftrace_reports.bundle import chart_bundle

    return chart_bundle()


def _breakable(name: str) -> Markup:
    # A browser breaks kvm_async_pf_ready in the middle of a word, unless it is told where.
    from markupsafe import Markup, escape

    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
