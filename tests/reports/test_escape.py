from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apftrace_reports import escape

from .analyses import HOSTILE

TEXT = st.one_of(
    st.text(),
    st.text("</script>|`*_[]()!&#~$\\]]>\x00\x1b\x7f\x85\u200f\u202e\u2028\ufeffé日a b\n", max_size=60),
)


@given(TEXT)
def test_visible_text_has_no_character_that_a_terminal_obeys(text):
    assert escape.visible(text).isprintable()


@given(st.text(st.characters(categories=("L", "N", "P", "S"))))
def test_printable_text_is_left_alone(text):
    assert escape.visible(text) == text


@pytest.mark.parametrize(
    ("char", "shown"),
    [
        ("\n", "\\n"),
        ("\x1b", "\\x1b"),
        ("\u202e", "\\u202e"),
        ("\udcff", "\\udcff"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_an_escape_names_the_character(char, shown):
    assert escape.visible(f"a{char}b") == f"a{shown}b"


@given(TEXT)
def test_xml_text_reads_back(text):
    shown = escape.xml(text)
    element = ElementTree.fromstring(f'<a b="{shown}">{shown}</a>')
    assert element.text == (escape.visible(text) or None)
    assert element.get("b") == escape.visible(text)


@given(TEXT)
def test_markdown_text_leaves_no_bare_markup(text):
    bare = re.sub(r"\\.", "", escape.markdown(text))
    assert not re.search(r"[`*\[\]<>|~$&#\\]|://|www\.", bare)
    assert re.sub(r"\\(.)", r"\1", escape.markdown(text)) == escape.visible(text)


def test_a_kernel_name_stays_readable_in_markdown():
    assert escape.markdown("kvm_async_pf_ready _x_") == r"kvm_async_pf_ready \_x\_"


@given(TEXT)
def test_a_code_span_cannot_be_closed_from_inside(text):
    span = escape.code_span(text)
    fence = re.match("`+", span).group()
    assert span.endswith(fence)
    inside = span[len(fence) : -len(fence)]
    assert fence not in re.findall("`+", inside)
    assert "|" not in inside.replace("\\|", "")


@given(TEXT, st.integers(12, 90))
def test_wrapped_lines_keep_the_width_and_every_character(text, width):
    shown = escape.visible(text)
    lines = escape.wrap(shown, width, "  * ", "    ")
    assert all(escape.columns(line) <= width for line in lines)
    joined = lines[0].removeprefix("  * ").removeprefix("  *") + "".join(line[4:] for line in lines[1:])
    assert joined.replace(" ", "") == shown.replace(" ", "")


def test_wrapping_breaks_at_spaces_first():
    assert escape.wrap("one two three", 8) == ["one two", "three"]
    assert escape.wrap("abcdefghijkl", 5) == ["abcde", "fghij", "kl"]


def test_wide_characters_count_double_and_marks_nothing():
    assert escape.columns("日本") == 4
    assert escape.columns("e\u0301") == 1


@given(TEXT, st.integers(1, 40))
def test_padding_gives_the_exact_width(text, width):
    assert escape.columns(escape.pad(escape.visible(text), width)) == width


def test_the_hostile_sample_is_tamed():
    assert escape.visible(HOSTILE) == "</script><script>alert(1)</script>|`]]>\\x1b[31m\\u202e\\x00&\"'<!--"
