"""Errors a user can mend.

Every message is one line: what is wrong, in which file or under which key, and what to do.
Commands print it without a traceback and exit with status 1 (`lewm_core.commands.runner`).
"""


class UserError(Exception):
    """Something the user gave cannot be used; the message says what to do about it."""


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
