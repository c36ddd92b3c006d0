"""Write the reference pages of docs/ from the code that they describe.

    python -m apftrace.docs        # in the checkout

The command line, the tables and the rule catalogue each have one page; tests compare the pages with the
code. The verdicts in sample-traces/README.md are filled in too, from the sample traces themselves.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apftrace import schema, uname
from apftrace.api import analyze
from apftrace.cli import cli
from apftrace.cli.analyze import status
from apftrace.model import tracepoints as tp
from apftrace.model.rules import CATALOGUE
from apftrace.model.rules.base import function_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from apftrace.model.rules.base import Rule

_COMMITS = "https://git.kernel.org/linus/"
_MADE = "<!-- Made by python -m apftrace.docs: edit the code that it describes, then run that. -->"
_VERDICT = re.compile(r"^```verdict\n.*?^```$", re.M | re.S)


def cli_page() -> str:
    """Return the page of the command line: every verb with its help, arguments, options and example."""
    page = [*_title("Command line", cli.help or "")]
    page += ["`apftrace -h` and `apftrace VERB -h` show this text, `apftrace --version` the version.", ""]
    for name, command in cli.commands.items():
        page += [f"## apftrace {name}", "", *_command(command)]
    return _joined(page)


def _command(command: click.Command) -> Iterator[str]:
    # With the names of the real command line: click remembers the first that it hears.
    context = click.Context(command, help_option_names=cli.context_settings["help_option_names"])
    pieces = command.collect_usage_pieces(context)
    usage = " ".join(["apftrace", str(command.name), *pieces])
    yield from ("```", usage, "```", "")
    yield from _help(command.help or "")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        yield from _table(("option", "meaning"), (_option(option) for option in options))


def _option(option: click.Option) -> tuple[str, str]:
    names = ", ".join(option.opts)
    if isinstance(option.type, click.Choice):
        names += " " + "|".join(str(choice) for choice in option.type.choices)
    elif not option.is_flag:
        names += f" {option.metavar or option.type.name.upper()}"
    default = f" Default: {option.default}." if option.show_default else ""
    return f"`{names}`".replace("|", "\\|"), f"{_text(option.help or '')}{default}"


def _help(text: str) -> Iterator[str]:
    # click's mark for a paragraph whose lines stay as they are is \b.
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.replace("\b\n", "").splitlines()
        if lines[0] == "Example:":
            yield from ("Example:", "", "```", *(line.strip() for line in lines[1:]), "```", "")
        else:
            yield from (_text(" ".join(line.strip() for line in lines)), "")


def schema_page() -> str:
    """Return the page of the tables, the phases and the outcomes."""
    page = _title(
        "Tables",
        f"Schema version {schema.SCHEMA_VERSION}. Every table is a polars frame of the analysis; "
        "`apftrace.schema` holds its Arrow schema too, with unit and meaning in each field's metadata. "
        "Times are integers in ns of the trace clock, or in its ticks where no rate is known. What is absent "
        "is null. Tokens and addresses are unsigned: in a sum with a time polars would widen both.",
    )
    for table in schema.TABLES:
        page += [f"## {table.name}", "", _text(table.doc), ""]
        kinds = {field.name: _kind(str(field.type)) for field in table.arrow()}
        rows = ((f"`{c.name}`", kinds[c.name], c.unit, _text(c.doc)) for c in table.columns)
        page += _table(("column", "type", "unit", "meaning"), rows)
    page += ["## Phases", "", "A life goes through them in this order.", ""]
    page += _table(("phase", "meaning"), ((f"`{p}`", _text(doc)) for p, doc in schema.PHASES.items()))
    instants = " ".join(f"`{instant}`" for instant in schema.INSTANTS)
    page += [f"The instants that bound them, in their usual order: {instants}.", ""]
    page += ["## Outcomes", ""]
    page += _table(("outcome", "meaning"), ((f"`{o}`", _text(doc)) for o, doc in schema.OUTCOMES.items()))
    return _joined(page)


def _kind(arrow: str) -> str:
    """Return an Arrow type as people write it."""
    inner = re.fullmatch(r"large_list<item: (.*)>", arrow)
    if inner is None:
        return arrow.replace("large_string", "string")
    return "list of " + _kind(inner[1]).replace("struct<", "{").replace(">", "}")


def rules_page() -> str:
    """Return the page of the rule catalogue, and of the tracepoints that it reads."""
    page = _title(
        "Rules",
        "A finding names its rule. A rule looks only where the trace holds the tracepoints that it needs; "
        "elsewhere it is listed as not run. Those that help make it surer, or let it name the cause. "
        "[Reading a report](reading-a-report.md) tells what severity and confidence mean.",
    )
    page += _table(
        ("rule", "severity", "title"),
        ((f"[{r.id}](#{r.id})", ", ".join(r.severities), _text(r.title)) for r in CATALOGUE),
    )
    for rule in CATALOGUE:
        page += [f"## {rule.id}", "", *_rule(rule)]
    page += ["## Tracepoints", "", "What is read, under the newest name first.", ""]
    page += _table(
        ("tracepoint", "needed by", "helps"),
        (
            (
                " or ".join(f"`{event}`" for event in point.pick.events),
                " ".join(r.id for r in CATALOGUE if point.kind in r.needs),
                " ".join(r.id for r in CATALOGUE if point.kind in r.helps),
            )
            for point in tp.TRACEPOINTS
        ),
    )
    return _joined(page)


def _rule(rule: Rule) -> Iterator[str]:
    yield from (f"**{_text(rule.title)}** ({' or '.join(rule.severities)})", "")
    facts = (
        ("What it means to the guest", _text(rule.means)),
        ("Shown by", _text(rule.shown_by)),
        ("Not to be confused with", _text(rule.look_alikes) if rule.look_alikes != "-" else ""),
        ("Needs", _needs(rule) or "nothing"),
        ("Helped by", _events(rule.helps)),
        ("What to do", _text(rule.remedy)),
    )
    yield from (f"- {label}: {text}" for label, text in facts if text)
    if rule.bugs:
        yield "- Known bugs:"
        yield from (f"  - {_bug(bug)}" for bug in rule.bugs)
    yield ""


def _needs(rule: Rule) -> str:
    hooks = [f"`{function_of(kind)}`" for kind in rule.guest]
    in_guest = f"a guest's trace that shows {' '.join(hooks)}" if hooks else ""
    instead = [f"instead of {_events([k])}, {_events(others)} do" for k, others in rule.stand_ins.items()]
    return "; ".join([" and ".join(filter(None, (_events(rule.needs), in_guest))), *instead])


def _events(kinds: Iterable[int]) -> str:
    return " ".join(f"`{tp.TRACEPOINTS[kind].pick.events[0]}`" for kind in kinds)


def _bug(bug: str) -> str:
    commit, colon, subject = bug.partition(": ")
    if colon and re.fullmatch(r"[0-9a-f]{7,40}", commit):
        return f"[{commit}]({_COMMITS}{commit}): {_text(subject)}"
    return _text(bug)


def verdict(path: Path) -> str:
    """Return what apftrace makes of a sample trace, as sample-traces/README.md shows it."""
    analysis = analyze(path)
    source = analysis.inputs[0]
    lines = [
        f"format    {source.format}",
        f"kernel    {uname.release(source.kernel) or 'not stated'}",
        f"clock     {source.clock} ({source.clock_unit})",
        f"verdict   {analysis.verdict}",
        f"          {analysis.headline}",
        *(f"unsafe    {reason}" for reason in analysis.unsafe),
        f"exit      {status(analysis, 'error')}",
    ]
    return "\n".join(lines) + "\n"


def with_verdicts(page: str, folder: Path) -> str:
    """Return the page of the sample traces with each verdict filled in, by the heading above it."""

    def filled(match: re.Match[str]) -> str:
        name = re.findall(r"^## (\S+)$", page[: match.start()], re.M)[-1]
        return f"```verdict\n{verdict(folder / name)}```"

    return _VERDICT.sub(filled, page)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "schema.md": schema_page,
    "rules.md": rules_page,
}
"""File name to what writes it."""


def _title(title: str, text: str) -> list[str]:
    return [_MADE, "", f"# {title}", "", *_help(text)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |".replace("  |", " |") for cells in (head, ["-"] * len(head), *rows)]
    return [*lines, ""]


def _text(text: str) -> str:
    return re.sub(r"([\\*<|])", r"\\\1", text)


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def main(root: Path = Path()) -> None:
    """Write every page below a checkout."""
    texts = {root / "docs" / name: page() for name, page in PAGES.items()}
    samples = root / "sample-traces" / "README.md"
    texts[samples] = with_verdicts(samples.read_text("utf-8"), samples.parent)
    for path, text in texts.items():
        path.write_text(text, "utf-8")
        click.echo(f"{path} written")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
