"""The training loop: one run, from its folder to its checkpoint.

What decides a weight is a function of (configuration, data, seed, step): the order of the clips,
dropout, SIGReg's directions, the learning rate. A run that was killed at any moment and continued
with ``resume`` therefore ends with the weights of one that was not (on the same machine with the
same number of threads; a run bounded by ``minutes`` is the exception).
"""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lewm_core.errors import UserError
from lewm_core.model.checkpoint import save_checkpoint
from lewm_core.model.loss import LewmLoss, LossTerms
from lewm_core.model.world_model import WorldModel
from lewm_core.training.card import checkpoint_metadata, model_card
from lewm_core.training.config import TrainConfig
from lewm_core.training.data import TrainingData
from lewm_core.training.distributed import (
    Processes,
    agree,
    any_of,
    synchronise_batch_norm,
    wait_for_all,
)
from lewm_core.training.machine import peak_memory_mib
from lewm_core.training.measure import Measurement, StateProbe, measure
from lewm_core.training.metrics import MetricsLog, draw_curves
from lewm_core.training.monitors import warnings
from lewm_core.training.pipeline import Batch, BatchPipeline, step_seed, to_device
from lewm_core.training.progress import ProgressDisplay
from lewm_core.training.run import RunFolder
from lewm_core.training.schedule import learning_rate, run_progress
from lewm_core.training.state import Progress, load_state, save_state

_log = logging.getLogger(__name__)

#: Steps between two looks at whether another process was asked to stop.
_ASK_OTHERS_EVERY = 10


class TrainingFailed(UserError):
    """The loss or a gradient is not finite any more."""


@dataclass
class TrainResult:
    """How a run ended.

    Attributes:
        step: Optimiser steps made.
        finished: False after SIGINT or SIGTERM; ``resume`` continues then.
        checkpoint: The checkpoint's folder.
        minutes: Training time over all resumptions.
        frames_per_s: Pictures per second through forward and backward, in this process' part of
            the run; NaN if it made no step.
        peak_memory_mib: Largest resident memory of this process.
        measurement: The last measurement on held-out episodes.
        warnings: What the monitors said at the end.
    """

    step: int
    finished: bool
    checkpoint: Path
    minutes: float
    frames_per_s: float
    peak_memory_mib: float
    measurement: Measurement | None = None
    warnings: list[str] = field(default_factory=list)


class Trainer:
    """One run.

    Args:
        data: Cache, contract and the two sides of the split.
        config: All settings, resolved (`lewm_core.training.data.resolve`).
        folder: Where the run lives.
        device: Where it computes.
        processes: This process' place among those of the run.
        probe: Scores states for the monitors; None measures without.
        command: The command line, for the model card.
    """

    def __init__(
        self,
        data: TrainingData,
        config: TrainConfig,
        folder: RunFolder,
        device: torch.device,
        processes: Processes | None = None,
        probe: StateProbe | None = None,
        command: str = "",
    ) -> None:
        self.data, self.config, self.folder = data, config, folder
        self.device, self.processes = device, processes or Processes()
        self.probe, self.command = probe, command
        self._share = self.processes.share(config.batch_size)
        self._sampler = data.train_sampler(config)
        torch.manual_seed(config.seed)
        self.model = WorldModel(config.model)
        mean, std = self._sampler.action_statistics()
        self.model.set_action_statistics(mean, std)
        self.model.set_state_statistics(*self._sampler.input_statistics())
        self.model.to(device)
        self._optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.optimiser.learning_rate,
            betas=config.optimiser.betas,
            weight_decay=config.optimiser.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        self.progress = Progress()
        self._measured: Measurement | None = None
        self._train_s = 0.0
        self._train_frames = 0
        if folder.state.exists():
            self.progress = load_state(folder.state, self.model, self._optimiser)
        self._loss = self._wrap()

    def _wrap(self) -> nn.Module:
        """Return model and loss as the one module that makes a training step."""
        loss: nn.Module = LewmLoss(self.model, self.config.loss).to(self.device)
        if self.processes.count > 1:
            synchronise_batch_norm(loss)
            loss = DistributedDataParallel(
                loss,
                device_ids=[self.device.index] if self.device.type == "cuda" else None,
            )
        return torch.compile(loss) if self.config.compile else loss

    def train(self) -> TrainResult:
        """Train to the end, or until SIGINT or SIGTERM.

        Raises:
            TrainingFailed: The loss became NaN or infinite; the last good state is kept.
        """
        steps = self.config.steps or 1
        leads = self.processes.leads
        log = MetricsLog(self.folder.path, self.progress.step) if leads else None
        try:
            with (
                ProgressDisplay(steps, self.progress.step, silent=not leads) as display,
                _stop_request() as stop,
                BatchPipeline(
                    self._sampler,
                    self.progress.step,
                    steps,
                    self._share,
                    pin=self.device.type == "cuda",
                ) as batches,
            ):
                stopped = self._run(batches, steps, log, display, stop)
                found = self._conclude(log, display, stopped)
        finally:
            if log is not None:
                log.close()
        return TrainResult(
            step=self.progress.step,
            finished=not stopped,
            checkpoint=self.folder.checkpoint,
            minutes=self.progress.elapsed_s / 60,
            frames_per_s=self._rate(),
            peak_memory_mib=peak_memory_mib(),
            measurement=self._measured,
            warnings=found,
        )

    def _run(
        self,
        batches: BatchPipeline,
        steps: int,
        log: MetricsLog | None,
        display: ProgressDisplay,
        stop: _StopFlag,
    ) -> bool:
        """Make steps until the end; return whether it was stopped before."""
        config = self.config
        self._loss.train()
        averages = _Averages()
        begun = time.monotonic() - self.progress.elapsed_s
        window_s = time.monotonic()
        window_frames = 0
        for batch in batches:
            share = (
                agree(
                    run_progress(
                        batch.step, steps, self.progress.elapsed_s, config.model_minutes
                    ),
                    self.processes,
                    self.device,
                )
                if config.minutes is not None
                else run_progress(batch.step, steps, 0.0, None)
            )
            if share >= 1.0:
                break
            rate = self._learning_rate(share)
            terms, norm = self.make_step(to_device(batch, self.device), rate)
            averages.add(terms, norm)
            # Before anything is saved: a bad step must never replace a good state. On a GPU the
            # look waits for the device, so it is taken when numbers are read anyway.
            done = batch.step + 1
            due = done % config.log_every == 0 or done == steps
            saves = done % config.checkpoint_every == 0
            measures = done % config.evaluate_every == 0 and done < steps
            if self.device.type == "cpu" or due or saves or measures:
                self._check_finite(terms, norm, batch.step)
            window_frames += config.batch_size * config.clip_length
            self.progress = Progress(
                done,
                time.monotonic() - begun,
                self.progress.frames + config.batch_size * config.clip_length,
            )
            if due:
                seconds = max(1e-9, time.monotonic() - window_s)
                self._account(window_frames, seconds)
                values = averages.read() | {"lr": rate, "frames_per_s": window_frames / seconds}
                if log is not None:
                    log.write("train", done, values)
                    display.update(done, values, self._seconds_left(steps))
                window_s, window_frames = time.monotonic(), 0
            if measures or saves:
                self._account(window_frames, time.monotonic() - window_s)
                if measures:
                    self._measure(log, display)
                self._save()
                window_s, window_frames = time.monotonic(), 0
            if self._asked_to_stop(stop, done):
                return True
        self._account(window_frames, time.monotonic() - window_s)
        return False

    def make_step(self, batch: Batch, rate: float) -> tuple[LossTerms, torch.Tensor]:
        """Make one optimiser step.

        Args:
            batch: This process' part of the step's clips, on the device.
            rate: Learning rate.

        Returns:
            The loss terms of the clips given, and the gradient's norm before it was clipped,
            averaged over all processes.
        """
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(step_seed(self.config.seed, batch.step, self.processes.rank))
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            terms = self._loss(batch.frames, batch.actions, batch.inputs)
        self._optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.optimiser.gradient_clip
        )
        self._optimiser.step()
        return terms._replace(total=terms.total.detach()), norm

    def _learning_rate(self, share: float) -> float:
        optimiser, steps = self.config.optimiser, self.config.steps or 1
        warmup = optimiser.warmup
        if optimiser.warmup_steps is not None:
            warmup = min(optimiser.warmup_steps / steps, 0.5)
        # The middle of the step, so that neither the first nor the last has a rate of 0.
        return learning_rate(
            share + 0.5 / steps, warmup, optimiser.learning_rate, optimiser.final_fraction
        )

    def _check_finite(self, terms: LossTerms, norm: torch.Tensor, step: int) -> None:
        # The norm is that of the gradients averaged over all processes, so all agree.
        if math.isfinite(float(norm)) and (
            self.processes.count > 1 or math.isfinite(float(terms.total))
        ):
            return
        kept = (
            f"the last good state (step {self._saved_step()}) is kept in {self.folder.path}"
            if self.folder.state.exists()
            else "no state had been saved yet"
        )
        raise TrainingFailed(
            f"the loss is not finite any more at step {step + 1} (total "
            f"{float(terms.total):.4g}, gradient norm {float(norm):.4g}); {kept}; lower "
            "optimiser.learning_rate, or set precision=float32, and start anew in another --out"
        )

    def _saved_step(self) -> int:
        every = (self.config.checkpoint_every, self.config.evaluate_every)
        return max(self.progress.step // number * number for number in every)

    def _measure(
        self, log: MetricsLog | None, display: ProgressDisplay, final: bool = False
    ) -> list[str]:
        """Measure on held-out episodes and warn; only the leading process does."""
        found: list[str] = []
        if log is not None:
            limits = self.config.monitor
            fitted, scored, clips = self.data.measurement_frames(self.config, final)
            self._measured = measure(self.model, fitted, scored, clips, limits, self.probe)
            log.write("evaluation", self.progress.step, self._measured.row())
            if final or self._share_done() >= limits.warn_after:
                found = warnings(self._measured.health, limits, self.config.loss.weight)
            for text in found:
                log.write("warning", self.progress.step, {"text": text})
                display.say(f"warning: {text}")
            draw_curves(self.folder.path)
        wait_for_all(self.processes)
        return found

    def _conclude(
        self, log: MetricsLog | None, display: ProgressDisplay, stopped: bool
    ) -> list[str]:
        """Measure once more and save; after a stop only save, for whoever stops is in a hurry."""
        found = []
        if not stopped:
            display.say("measuring on held-out episodes ...")
            found = self._measure(log, display, final=True)
        self._save()
        return found

    def metadata(self) -> dict[str, Any]:
        """What the checkpoint says about the training so far."""
        return checkpoint_metadata(
            self.data, self.config, self.progress, self._measured, self.device, self._rate()
        )

    def _save(self) -> None:
        if self.processes.leads:
            save_state(self.folder.state, self.progress, self.model, self._optimiser)
            metadata = self.metadata()
            save_checkpoint(
                self.folder.checkpoint,
                self.model,
                self.data.contract.to_dict(),
                metadata,
                model_card(metadata, self.command),
            )
        wait_for_all(self.processes)

    def _account(self, frames: int, seconds: float) -> None:
        self._train_frames += frames
        self._train_s += seconds

    def _rate(self) -> float:
        return self._train_frames / self._train_s if self._train_frames else float("nan")

    def _share_done(self) -> float:
        return run_progress(
            self.progress.step,
            self.config.steps or 1,
            self.progress.elapsed_s,
            self.config.model_minutes,
        )

    def _seconds_left(self, steps: int) -> float:
        frames = (steps - self.progress.step) * self.config.batch_size * self.config.clip_length
        left = frames / self._rate()
        if self.config.model_minutes is not None:
            left = min(left, 60 * self.config.model_minutes - self.progress.elapsed_s)
        return left

    def _asked_to_stop(self, stop: _StopFlag, step: int) -> bool:
        if self.processes.count > 1 and step % _ASK_OTHERS_EVERY:
            return False
        return any_of(stop.asked, self.processes, self.device)


class _Averages:
    """Means of the loss terms since the last reading, kept on the device until then."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None
        self._count = 0

    def add(self, terms: LossTerms, norm: torch.Tensor) -> None:
        values = torch.stack(
            [value.detach().float() for value in (terms.total, terms.prediction, terms.sigreg)]
            + [norm.detach().float()]
        )
        self._sums = values if self._sums is None else self._sums + values
        self._count += 1

    def read(self) -> dict[str, float]:
        total, prediction, sigreg, norm = (
            (self._sums / self._count).tolist() if self._sums is not None else [math.nan] * 4
        )
        self._sums, self._count = None, 0
        return {"total": total, "prediction": prediction, "sigreg": sigreg, "grad_norm": norm}


class _StopFlag:
    def __init__(self) -> None:
        self.asked = False


@contextmanager
def _stop_request() -> Iterator[_StopFlag]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one interrupts at once."""
    flag = _StopFlag()

    def ask(number: int, frame: Any) -> None:
        flag.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where no handler can be set and none arrives
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
