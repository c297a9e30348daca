"""What is printable of a text that others wrote: a plugin, a file, an exception."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, which may repeat what a user wrote at any length."""
    return shortened(clean(next(iter(str(error).strip().splitlines()), "no message")), 1000)


def shortened(text: str, most: int = 300) -> str:
    """A text of which the first ``most`` characters are enough to know it by."""
    return text if len(text) <= most else f"{text[:most]}…"


def named(name: str) -> str:
    """A name that a user wrote, in quotes."""
    return shortened(repr(name))


def clean(text: str) -> str:
    """One line that moves no cursor: runs of white space and control characters become one space."""
    return " ".join(printable(text).split())


def printable(text: str, lines: bool = False) -> str:
    """The text with each character that is not to be printed, such as an escape, as a space.

    Args:
        text: of a plugin or a file.
        lines: whether it may have several.
    """
    return "".join(c if c.isprintable() or (lines and c == "\n") else " " for c in text)
