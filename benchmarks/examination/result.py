"""What an examination found: faults, what could not be looked at, and facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["fault", "unseen", "fact"]


@dataclass(frozen=True)
class Finding:
    """One line of an examination.

    Attributes:
        kind: "fault": what does not hold, with what to do; "unseen": what was not looked at, and why;
            "fact": what was found.
        about: what was looked at.
        text: one line.
    """

    kind: Kind
    about: str
    text: str

    def __str__(self) -> str:
        if self.kind == "unseen":
            return f"{self.about}: not looked at, {self.text}"
        return f"{self.about}: {self.text}"


@dataclass(frozen=True)
class Examination:
    """All that was found of a problem; printing it prints all of it.

    Attributes:
        label: what was examined.
        findings: in the order in which it was looked.
        command: what to run next, of a sound problem that a specification names; else "".
    """

    label: str
    findings: tuple[Finding, ...]
    command: str = ""

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What does not hold."""
        return tuple(finding for finding in self.findings if finding.kind == "fault")

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __str__(self) -> str:
        if self.sound:
            return "\n".join([f"{self.label}: sound", *_table(self.findings), *self._next()])
        count = len(self.faults)
        unseen = [finding for finding in self.findings if finding.kind == "unseen"]
        return "\n".join(
            [
                f"{self.label}: {count} fault{'' if count == 1 else 's'}",
                *(f"  {finding.text}" for finding in self.faults),
                *(f"  {finding}" for finding in unseen),
            ]
        )

    def _next(self) -> list[str]:
        return [f"next: {self.command}"] if self.command else []


def _table(findings: tuple[Finding, ...]) -> list[str]:
    width = max((len(finding.about) for finding in findings), default=0)
    return [f"  {finding.about:<{width}}  {finding.text}" for finding in findings]
