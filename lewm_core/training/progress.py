"""How a run shows that it is alive: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

#: Seconds between lines where there is no terminal.
LINE_EVERY_S = 30.0

#: Short enough for 80 columns; tqdm's own rate and time would be in steps and say less.
_STAGE_BAR = "{desc} {percentage:3.0f}% {bar:8}{postfix}"
_BAR = "{percentage:3.0f}% {bar:8} {n_fmt}/{total_fmt}{postfix}"


class ProgressDisplay:
    """Shows step, loss terms, frames per second and time left, on standard error.

    Args:
        steps: Steps of the whole run.
        step: Steps already made.
        silent: Show nothing: for the processes that do not lead.
    """

    def __init__(self, steps: int, step: int, silent: bool = False) -> None:
        self._steps = steps
        self._silent = silent
        self._bar: tqdm | None = None
        self._next_line = time.monotonic()
        if not silent and sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=step, dynamic_ncols=True, bar_format=_BAR)

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, values: Mapping[str, float], left_s: float) -> None:
        """Show the newest averages.

        Args:
            step: Steps made.
            values: ``total``, ``prediction``, ``sigreg``, ``frames_per_s``.
            left_s: Estimated seconds to the end of the run.
        """
        if self._silent:
            return
        pace = f"{values['frames_per_s']:.0f} frames/s, {_duration(left_s)} left"
        if self._bar is not None:
            terms = f"prediction {values['prediction']:.4f}, SIGReg {values['sigreg']:.2f}"
            self._bar.set_postfix_str(f"{terms}, {pace}", refresh=False)
            self._bar.update(step - self._bar.n)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            terms = (
                f"loss {values['total']:.4f} = prediction {values['prediction']:.4f} + "
                f"weight x SIGReg {values['sigreg']:.2f}"
            )
            self.say(f"step {step}/{self._steps}: {terms}, {pace}")

    def say(self, text: str) -> None:
        """Print a line without tearing the bar."""
        if not self._silent:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()


class StageProgress:
    """Shows how far a later stage is, on standard error: call it after every step.

    Attributes:
        steps: How often it was called.

    Args:
        name: Of the stage.
    """

    def __init__(self, name: str) -> None:
        self.steps = 0
        self._name = name
        self._loss = float("nan")
        self._begun = time.monotonic()
        self._next_line = self._begun
        self._bar: tqdm | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=100, dynamic_ncols=True, bar_format=_STAGE_BAR, desc=name)

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, share: float, loss: float) -> None:
        """Take note of a step.

        Args:
            share: Part of the stage that is done, 0 to 1.
            loss: Of the step.
        """
        self.steps += 1
        self._loss = loss if self.steps == 1 else 0.98 * self._loss + 0.02 * loss
        now = time.monotonic()
        if now < self._next_line:
            return
        left = _duration((now - self._begun) * (1 - share) / share) if share > 0 else "?"
        text = f"loss {self._loss:.4f}, {left} left"
        if self._bar is not None:
            self._next_line = now + 1.0
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(round(100 * share) - self._bar.n)
        else:
            self._next_line = now + LINE_EVERY_S
            print(f"{self._name}: {100 * share:.0f} %, {text}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
