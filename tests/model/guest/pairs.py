"""A host and its guest as short histories, and what comes of them together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apftrace
from tests.builders.guest_story import GuestStory
from tests.builders.story import Story
from tests.model.support import MS, START, S, write

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from apftrace import Analysis

BOOTED = 4 * S
"""Host time at which the guests of these histories booted: their clocks are that far behind."""

EVERY = 3 * MS


class Pair:
    """A host with one VM, and its guest, both of which see every life."""

    def __init__(self, *, booted: int = BOOTED) -> None:
        self.host = Story()
        self.guest = GuestStory(booted=booted)
        self.tokens: list[int] = []

    def calm(self, lives: int = 30, *, start: int = START, vcpus: int = 2) -> Pair:
        """Add lives on each vCPU that nothing is wrong with, asleep or not."""
        for n in range(lives):
            for vcpu in range(vcpus):
                self.life(
                    at=start + n * EVERY + vcpu * MS, vcpu=vcpu, tid=200 + n % 5 + 10 * vcpu, slept=n % 3 > 0
                )
        return self

    def life(
        self,
        *,
        at: int,
        vcpu: int = 0,
        tid: int = 200,
        slept: bool = True,
        without: Collection[str] = (),
        unseen: Collection[str] = (),
        **guest: Any,
    ) -> int:
        """Add a life; ``without`` leaves events of the host out, ``unseen`` those of the guest."""
        token = self.host.pv_life(at=at, vcpu=vcpu, without=without)
        self.guest.life(at=at, token=token, vcpu=vcpu, tid=tid, slept=slept, without=unseen, **guest)
        self.tokens.append(token)
        return token

    def until(self, end: int) -> Pair:
        """Let both go on, so that what is missing then is missing for good."""
        for vcpu in range(2):
            self.host.progress(start=START + 200 * MS, end=end, vcpu=vcpu)
            self.guest.tick(end - 1000, vcpu)
        return self

    def analyse(self, *, guest_off: Collection[str] = (), **options: Any) -> Analysis:
        """Return what comes of both."""
        return together(self.host, {"vm1": self.guest}, guest_off=guest_off, **options)

    def guest_alone(self) -> Analysis:
        """Return what comes of the guest's trace without the host's."""
        with tempfile.TemporaryDirectory() as directory:
            return apftrace.analyze(self.guest.write(Path(directory) / "guest.txt"))


def together(
    host: Story,
    guests: Mapping[str, GuestStory],
    *,
    off: Collection[str] = (),
    guest_off: Collection[str] = (),
    named: bool = True,
    **options: Any,
) -> Analysis:
    """Return what comes of a host and its guests.

    Args:
        host: the host.
        guests: by name.
        off: tracepoints that the host's trace does not have.
        guest_off: labels of events that no guest's trace has: names before the colon.
        named: say which traces are guests', instead of leaving it to their content.
        options: of ``analyze``.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        path = write(host, folder / "trace.dat", off=off)
        texts = {}
        for name, guest in guests.items():
            guest.lines = [
                line for line in guest.lines if not any(f": {gone}:" in line[2] for gone in guest_off)
            ]
            texts[name] = guest.write(folder / f"trace-{name}.txt")
        if named:
            return apftrace.analyze(path, guests=texts, **options)
        return apftrace.analyze([*texts.values(), path], **options)
