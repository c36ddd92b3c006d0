"""Recoverable damage: count it, say where the first few are, and go on."""

from __future__ import annotations

SAMPLES = 3


class ImportLog:
    """Notes by kind; of each kind the first few are kept as sentences, the rest only counted."""

    def __init__(self) -> None:
        self._samples: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def note(self, kind: str, sentence: str, n: int = 1) -> None:
        """Remember one case.

        Args:
            kind: what cases have in common, a plural such as ``damaged pages``.
            sentence: this case, with its offset.
            n: cases that the sentence stands for.
        """
        self._counts[kind] = self._counts.get(kind, 0) + n
        samples = self._samples.setdefault(kind, [])
        if len(samples) < SAMPLES:
            samples.append(sentence)

    def count(self, kind: str, n: int) -> None:
        """Count cases of which nothing more is told."""
        if n:
            self._counts[kind] = self._counts.get(kind, 0) + n
            self._samples.setdefault(kind, [])

    def add(self, other: ImportLog) -> None:
        """Take over what another log holds."""
        for kind, samples in other._samples.items():
            for sentence in samples:
                self.note(kind, sentence)
            self.count(kind, other._counts[kind] - len(samples))

    def has(self, kind: str) -> bool:
        """Say whether there was any case of a kind."""
        return kind in self._counts

    def sentences(self) -> list[str]:
        """Return the notes in order of first appearance, and per kind how many more there were."""
        lines: list[str] = []
        for kind, samples in self._samples.items():
            lines += samples
            more = self._counts[kind] - len(samples)
            if more > 0:
                lines.append(f"{more} {'more ' if samples else ''}{kind}")
        return lines
