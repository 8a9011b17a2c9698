"""What users are told when something does not work: one line, and what to do about it."""

from __future__ import annotations

import sys

UNKNOWN = "no op of a model file does this"
"""Of a function that nothing here knows."""


def note(text: str) -> None:
    """Tells people what was assumed."""
    print(f"note: {text}", file=sys.stderr)


class ZipitError(Exception):
    """A failure the user can act upon; its text is the whole message."""


class LoweringError(ZipitError):
    """A network, or a part of one, that has no exact counterpart among the ops of a model file."""

    def __init__(self, node: str, op: str, reason: str) -> None:
        super().__init__(f"{node}: {op}: {reason}")
        self.node = node
        self.op = op
        self.reason = reason
