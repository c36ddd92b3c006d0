"""Help: an example for every verb, short options, and nothing heavy imported for it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import apftrace
from apftrace.cli import COMMANDS, cli

if TYPE_CHECKING:
    import click

    from tests.cli.conftest import Run

HEAVY = ("polars", "pyarrow", "altair", "jinja2", "vl_convert", "zstandard", "numpy")
verbs = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


@verbs
def test_every_verb_shows_an_example_of_itself(run: Run, command: click.Command) -> None:
    result = run(command.name, "--help")
    example = result.text.partition("Example:")[2]
    assert f"apftrace {command.name} " in example
    assert (result.status, result.err) == (0, "")


@verbs
def test_the_short_option_shows_the_same(run: Run, command: click.Command) -> None:
    assert run(command.name, "-h").out == run(command.name, "--help").out


@verbs
def test_every_option_of_a_verb_says_what_it_does(command: click.Command) -> None:
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert getattr(parameter, "help", None), parameter.name


@verbs
def test_the_list_of_verbs_has_a_sentence_for_each(run: Run, command: click.Command) -> None:
    listed = [line for line in run("-h").text.splitlines() if line.split()[:1] == [command.name]]
    assert len(listed) == 1
    assert len(listed[0].split()) > 4


def test_the_list_of_verbs_shows_an_example(run: Run) -> None:
    assert "apftrace analyze trace.dat" in run("--help").text.partition("Example:")[2]


def test_no_verb_shows_the_help_and_is_wrong_usage(run: Run) -> None:
    result = run()
    assert result.status == 2
    assert "Usage: apftrace" in result.err + result.text


def test_an_unknown_verb_is_wrong_usage(run: Run) -> None:
    result = run("analyse")
    assert result.status == 2
    assert "No such command 'analyse'" in result.err


def test_the_version(run: Run) -> None:
    assert run("--version").text.split() == ["apftrace", apftrace.__version__]


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "apftrace", "-h"], capture_output=True, text=True, check=True
    )
    assert "Usage: apftrace" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["analyze", "-h"], ["events", "-h"], ["--version"]])
def test_nothing_heavy_is_imported_for_help(arguments: list[str]) -> None:
    program = (
        "import sys; from apftrace.cli import main\n"
        f"sys.argv = ['apftrace', *{arguments!r}]\n"
        "try: main()\n"
        f"finally: sys.stderr.write(','.join(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_shells_can_complete_the_verbs() -> None:
    names = {command.name for command in COMMANDS}
    from click.shell_completion import ShellComplete

    found = ShellComplete(cli, {}, "apftrace", "_APFTRACE_COMPLETE").get_completions([], "")
    assert {item.value for item in found} >= names


@verbs
def test_every_verb_tells_its_exit_statuses(run: Run, command: click.Command) -> None:
    words = " ".join(run(command.name, "-h").text.split())
    told = words.partition("Exit status: ")[2].partition(" Example: ")[0]
    judges = command.name in {"analyze", "batch"}
    assert set(re.findall(r"(?:^|, )(\d) ", told)) == set("01234" if judges else "023")
    assert ("1 beats" in told) == judges
