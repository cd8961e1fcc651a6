"""Errors a user can mend.

Every message is one line: what is wrong, in which file or under which key, and what to do.
Commands print it without a traceback and exit with status 1 (`lewm_core.commands.runner`).
"""

from __future__ import annotations

#: Longer messages are cut in the middle: what a stranger's file holds must not fill a log.
LONGEST_MESSAGE = 2000


def one_line(text: object) -> str:
    """Return a text as one line that can be printed anywhere.

    White space of any length becomes one space. What a terminal would act upon (escape sequences
    in the names of a stranger's file) is written as Python would escape it.
    """
    words = " ".join(str(text)[: 8 * LONGEST_MESSAGE].split())
    line = "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in words
    )
    if len(line) <= LONGEST_MESSAGE:
        return line
    half = LONGEST_MESSAGE // 2 - 4
    return f"{line[:half]} [...] {line[-half:]}"


class UserError(Exception):
    """Something the user gave cannot be used; the message says what to do about it.

    Args:
        message: Made one line by `one_line`, whatever it quotes.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(message))


class ConfigError(UserError):
    """A configuration file or override has an unknown key or a value out of range."""


class ContractError(ConfigError):
    """A contract file is not valid, or two contracts differ."""


class BagError(UserError):
    """A bag is missing, damaged, or lacks the contract's topics."""


class ImageError(UserError):
    """A picture has an unknown encoding, a wrong size, or cannot be decoded."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or made for something else."""


class PlanningError(UserError):
    """The planner cannot make a plan from what it was given."""
