"""Change real captures in known ways and see what the analysis makes of them.

    python -m tests.corpus.run --cases 200 --seed 1
    python -m tests.corpus.run --case lost --cases 20                        # one mutator
    python -m tests.corpus.run --case lost@host-v6-none#17 --save DIRECTORY  # one case, kept as a file

A case is named MUTATOR@CAPTURE#NUMBER, and the name decides everything in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import apftrace
from tests.conftest import MORE, SAMPLES

from . import (  # noqa: F401 - they register
    mutate_doubt,
    mutate_end,
    mutate_gap,
    mutate_late,
    mutate_legal,
    mutate_lost,
    mutate_reset,
    mutate_sync,
    mutate_token,
    mutate_twice,
    mutate_vary,
)
from .edit import MUTATORS, Edit, Expectation, NotHere
from .judge import Judgement, Result, Said, judge
from .lives import Lives
from .reader import Capture, read
from .writer import write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COLUMNS = ("found", "right", "undecided rightly", "missed", "wrong", "undecided wrongly", "false")
SHOWN = 5
"""False findings of a case that are listed."""
TICKS = {"counter", "uptime"}
"""Clocks that do not tell two neighbouring events apart."""


@dataclasses.dataclass
class Case:
    """A finished case."""

    name: str
    rules: tuple[str, ...]
    judgement: Judgement


def capture_paths() -> dict[str, Path]:
    """Return captures by name: of the repository, and of APFTRACE_CAPTURES or beside the checkout."""
    found = [*SAMPLES.rglob("*.dat"), *MORE.rglob("*.dat")]
    return {path.stem: path for path in sorted(found, reverse=True)}


@cache
def load(name: str) -> tuple[Capture, Lives] | None:
    """Return a capture and its lives; null when it has none, or too coarse a clock."""
    capture = read(capture_paths()[name])
    lives = Lives(capture)
    return (capture, lives) if lives.all and capture.clock not in TICKS else None


def build(mutator: str, capture_name: str, number: int, path: Path) -> list[Expectation] | None:
    """Write the changed capture to ``path``; return null when the capture does not suit the mutator."""
    loaded = load(capture_name)
    if not loaded:
        return None
    capture, lives = loaded
    edit = Edit(dataclasses.replace(capture), lives, random.Random(f"{mutator}@{capture_name}#{number}"))
    try:
        expectations = MUTATORS[mutator](edit)
    except NotHere:
        return None
    write(edit.capture, edit.records(), path)
    return expectations


def analyse(path: Path) -> Said:
    """Run the analysis under test."""
    analysis = apftrace.analyze(apftrace.read_trace(path))
    return Said(analysis.faults.to_dicts(), analysis.findings.to_dicts(), analysis.accounting.to_dicts())


@cache
def baseline(capture_name: str) -> Said:
    """Return what the analysis says about a capture as it was recorded."""
    return analyse(capture_paths()[capture_name])


def run_case(mutator: str, capture_name: str, number: int, directory: Path) -> Case | None:
    """Run one case and leave its file in ``directory``."""
    name = f"{mutator}@{capture_name}#{number}"
    path = directory / f"{name}.dat"
    expectations = build(mutator, capture_name, number, path)
    if expectations is None:
        return None
    rules = tuple(sorted({r for e in expectations if "found" in e.verdicts for r in e.rule}))
    return Case(name, rules, judge(analyse(path), baseline(capture_name), expectations))


def run(
    cases: int, seed: int, *, only: str | None = None, save: Path | None = None, largest: int = 0
) -> Iterator[Case]:
    """Run cases, every mutator as often as the others, on captures picked by ``seed``.

    Args:
        cases: how many.
        seed: decides captures and numbers.
        only: a mutator.
        save: keep the files of failing cases here.
        largest: leave out captures with more bytes, 0 for none.
    """
    rng = random.Random(seed)
    names = [n for n, p in capture_paths().items() if not largest or p.stat().st_size <= largest]
    mutators = [only] if only else list(MUTATORS)
    with tempfile.TemporaryDirectory() as scratch:
        for n in range(cases):
            mutator = mutators[n % len(mutators)]
            for capture_name in rng.sample(sorted(names), len(names)):
                case = run_case(mutator, capture_name, rng.randint(0, 9999), Path(scratch))
                if case:
                    yield case
                    break
            for file in Path(scratch).iterdir():
                if save and case and not case.judgement.ok:
                    save.mkdir(parents=True, exist_ok=True)
                    file.rename(save / file.name)
                else:
                    file.unlink()


def table(cases: Iterable[Case]) -> str:
    """Return one line per mutator: its rules, and how often each verdict was right or not."""
    rows: dict[str, Counter[str]] = {}
    rules: dict[str, str] = {}
    for case in cases:
        mutator = case.name.split("@")[0]
        row = rows.setdefault(mutator, Counter())
        rules[mutator] = ",".join(case.rules) or "-"
        row["cases"] += 1
        row["false"] += len(case.judgement.false)
        row.update(r.status for r in case.judgement.results)
    head = f"{'mutator':32}{'rule':28}" + "".join(
        f"{c.replace('undecided ', 'und. '):>14}" for c in ("cases", *COLUMNS)
    )
    lines = [
        f"{mutator:32}{rules[mutator][:27]:28}" + "".join(f"{row[c] or '.':>14}" for c in ("cases", *COLUMNS))
        for mutator, row in sorted(rows.items())
    ]
    total = sum(rows.values(), Counter())
    return "\n".join(
        [head, *lines, f"{'total':60}" + "".join(f"{total[c]:>14}" for c in ("cases", *COLUMNS))]
    )


def table_of_rules(cases: Iterable[Case]) -> str:
    """Return one line per rule: what was planted for it, what became of that, and what it said wrongly.

    A case that may show one of several rules counts for the first. ``held back`` are expectations that the
    rule must keep quiet about something, met.
    """
    columns = ("planted", "found", "missed", "und. rightly", "und. wrongly", "held back", "false")
    rows: dict[str, Counter[str]] = {}
    for case in cases:
        for result in case.judgement.results:
            rule = next(iter(result.expectation.rule), "any rule")
            row = rows.setdefault(rule, Counter())
            row.update(_in_rule_table(result))
        for rule, _, _ in case.judgement.false:
            rows.setdefault(rule, Counter())["false"] += 1
    lines = [f"{'rule':28}" + "".join(f"{c:>14}" for c in columns)]
    lines += [
        f"{rule:28}" + "".join(f"{row[c] or '.':>14}" for c in columns) for rule, row in sorted(rows.items())
    ]
    return "\n".join(lines)


def _in_rule_table(result: Result) -> list[str]:
    planted = "found" in result.expectation.verdicts
    names = {
        "undecided rightly": "und. rightly",
        "undecided wrongly": "und. wrongly",
        "found": "found",
        "false": "false",
        "missed": "missed",
        "wrong": "missed" if planted else "false",
        "right": "und. rightly" if planted else "held back",
    }
    return [names[result.status], *(["planted"] if planted else [])]


def describe(case: Case) -> str:
    """Return what went wrong in a case, one line each."""
    lines = [case.name]
    for r in case.judgement.results:
        if r.status not in {"found", "right", "undecided rightly"}:
            e = r.expectation
            token = f"{e.token:#x}" if e.token is not None else "any token"
            due = "/".join(sorted(e.verdicts))
            lines.append(
                f"    {r.status}: tid {e.tid} {token} {','.join(e.rule)}: due {due}, got {r.verdict}"
            )
    for rule, tid, token in case.judgement.false[:SHOWN]:
        lines.append(f"    false: {rule} tid {tid} token {token if token is None else hex(token)}")
    if len(case.judgement.false) > SHOWN:
        lines.append(f"    ... and {len(case.judgement.false) - SHOWN} more false findings")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--cases", type=int, default=len(MUTATORS), help="how many (default: each mutator once)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", help="a mutator, or the name of one case")
    parser.add_argument(
        "--save", type=Path, help="keep failing cases (a named case always) in this directory"
    )
    args = parser.parse_args()
    if args.case and "@" in args.case:
        mutator, _, rest = args.case.partition("@")
        capture_name, _, number = rest.rpartition("#")
        directory = args.save or Path(tempfile.mkdtemp())
        directory.mkdir(parents=True, exist_ok=True)
        case = run_case(mutator, capture_name, int(number), directory)
        cases = [case] if case else []
        print(directory / f"{args.case}.dat")
    else:
        cases = list(run(args.cases, args.seed, only=args.case, save=args.save))
    print(table(cases))
    print()
    print(table_of_rules(cases))
    failed = [c for c in cases if not c.judgement.ok]
    for case in failed:
        print(describe(case))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
