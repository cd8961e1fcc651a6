"""What all commands share: ``--debug``, ``--json``, errors of one line, exit status."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lewm_core.errors import UserError

#: Exit status after SIGINT, as shells expect it (128 + 2).
INTERRUPTED = 130


def make_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser whose ``--help`` ends with an example that can be pasted.

    Args:
        name: The command, as the user types it.
        description: What it does, in a sentence or two.
        example: One or more command lines.
    """
    parser = argparse.ArgumentParser(
        prog=name,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    parser.add_argument("--debug", action="store_true", help="show a traceback on errors")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    body: Callable[[argparse.Namespace], dict[str, Any] | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Parse, run ``body``, write its result to ``--json``, and return the exit status.

    Args:
        parser: Made by `make_parser`.
        body: Gets the parsed arguments, returns the result for ``--json``: flat keys in
            snake_case.
        arguments: The command line without the program's name; default ``sys.argv[1:]``.

    Returns:
        0 on success, 1 after an error the user can mend, 130 after SIGINT.
    """
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        result = body(parsed)
        if parsed.json is not None:
            parsed.json.parent.mkdir(parents=True, exist_ok=True)
            parsed.json.write_text(json.dumps(result or {}, indent=2) + "\n")
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (UserError, OSError) as error:
        if parsed.debug:
            raise
        print(f"{parser.prog}: error: {_one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
