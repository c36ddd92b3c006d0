"""Lives that wait, both engines, held against a list that is searched from end to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from types import ModuleType

PAGES = [0x7F008, 0x7F010, 0x80000, 0x80000 + (1 << 22), -8, 0]


class Plain:
    """The same by search: lives are (slot, life, token, gva, over)."""

    def __init__(self) -> None:
        self.lives: list[list[int]] = []

    def begin(self, slot: int, life: int, token: int, gva: int) -> None:
        for entry in self.lives:
            if (entry[0], entry[3]) == (slot, gva):
                entry[4] = 1
        self.lives.append([slot, life, token, gva, 0])

    def answer(self, slot: int, token: int, gva: int) -> int:
        found = None
        for entry in self.lives:
            if (entry[0], entry[3]) == (slot, gva):
                entry[4] = 1
                if entry[2] == token:
                    found = entry
        if found is None:
            return -1
        self.lives.remove(found)
        return found[1]

    def of_page(self, gva: int) -> list[tuple[int, int]]:
        return [(e[0], e[1]) for e in self.lives if e[3] == gva and not e[4]]


def of_page(waiting: Any, gva: int) -> list[tuple[int, int]]:
    found = []
    at = waiting.first(gva)
    while at >= 0:
        found.append((waiting.slot[at], waiting.life[at]))
        at = waiting.after(at)
    return found


STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 4), st.sampled_from(PAGES)), max_size=60
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_course_reads_as_a_plain_search_does(
    waiting_engine: ModuleType, steps: list[tuple[bool, int, int, int]]
) -> None:
    waiting, plain = waiting_engine.Waiting(), Plain()
    for life, (begins, slot, token, gva) in enumerate(steps):
        if begins:
            waiting.begin(slot, life, token, gva)
            plain.begin(slot, life, token, gva)
        else:
            at = waiting.answer(slot, token, gva)
            assert (waiting.life[at] if at >= 0 else -1) == plain.answer(slot, token, gva)
        assert sorted(waiting.life[at] for at in waiting.all()) == sorted(entry[1] for entry in plain.lives)
        for page in PAGES:
            assert of_page(waiting, page) == plain.of_page(page)


def test_more_lives_than_there_is_room_for_at_first(waiting_engine: ModuleType) -> None:
    waiting = waiting_engine.Waiting(2)
    for life in range(5000):
        at = waiting.begin(life % 7, life, life, life << 12)
        waiting.kept[2 * at] = life
    assert of_page(waiting, 4321 << 12) == [(4321 % 7, 4321)]
    answered = [waiting.answer(life % 7, life, life << 12) for life in range(5000)]
    assert [waiting.life[at] for at in answered] == list(range(5000))
    assert [waiting.kept[2 * at] for at in answered] == list(range(5000))
    assert all(waiting.first(life << 12) == -1 for life in range(5000))
