"""The second stage: the predictor goes on learning while the encoder stands still.

The objective is that of the first stage less SIGReg, which has nothing left to act on: the error
of predicted embeddings, from true ones and after several steps that are fed back. Without the
encoder's convolutions a step costs a fraction, sees longer windows, and more of them. What a
planner asks of the model, several blocks ahead with a full history behind, is what is trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lewm_core.model.world_model import WorldModel
from lewm_core.training.config import RefinementConfig
from lewm_core.training.embeddings import EmbeddedEpisodes
from lewm_core.training.schedule import learning_rate

#: Called after every step with the share done and the loss.
Report = Callable[[float, float], None]


def refine_predictor(
    model: WorldModel,
    episodes: EmbeddedEpisodes,
    config: RefinementConfig,
    *,
    seed: int,
    autocast: torch.dtype | None = None,
    deadline: float | None = None,
    report: Report | None = None,
) -> int:
    """Train predictor and action encoder on embeddings that no longer change.

    Args:
        model: In eval mode; its encoder and projector are left as they are.
        episodes: To train on.
        config: Settings.
        seed: Of the windows drawn.
        autocast: Type that matrix products are computed in; None: as the weights.
        deadline: `time.monotonic` at which to be done, the schedule fitted to it; None: none.
        report: Told of every step.

    Returns:
        Steps made.

    Raises:
        BagError: No episode is long enough.
        FloatingPointError: The loss is not finite.
    """
    frozen = {id(p) for part in (model.encoder, model.projector) for p in part.parameters()}
    parameters = [p for p in model.parameters() if id(p) not in frozen]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    device = episodes.z.device
    history, future = model.history, config.rollout_steps
    candidates = episodes.ticks(history - 1, future)
    offsets = torch.arange(1 - history, future + 1, device=device)[None]
    generator = torch.Generator(device=device).manual_seed(seed)
    begun = time.monotonic()
    for step in range(config.steps):
        share = step / config.steps
        if deadline is not None:
            share = max(share, (time.monotonic() - begun) / max(deadline - begun, 1e-9))
            if share >= 1.0:
                return step
        rate = learning_rate(
            share, config.warmup_steps / config.steps, config.learning_rate, 0.0
        )
        for group in optimiser.param_groups:
            group["lr"] = rate
        draw = torch.randint(
            len(candidates), (config.batch_size,), generator=generator, device=device
        )
        ticks = candidates[draw]
        z = episodes.states(ticks, offsets)
        actions = episodes.actions(ticks, offsets[:, :-1])
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            loss = window_error(model, z, actions)
        if not bool(torch.isfinite(loss)):
            raise FloatingPointError(f"refinement: the loss is not finite at step {step + 1}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimiser.step()
        if report is not None:
            report(share, float(loss.detach()))
    return config.steps


def window_error(model: WorldModel, z: Tensor, actions: Tensor) -> Tensor:
    """Mean squared error of predictions in windows of true embeddings.

    One half is the one-step error from every length of true history, as the paper trains it; the
    other the errors of a rollout that begins with the full history and is fed its own predictions.

    Args:
        model: The predictor.
        z: (B, H + S, D), H the model's history, S steps to roll out.
        actions: (B, H + S - 1, F*A), normalised.
    """
    history = model.history
    modulations = model.modulations(actions)
    first = model.step(z[:, :history], [part[:, :history] for part in modulations])
    one_step = (first - z[:, 1 : history + 1]).square().mean()
    states = [*z[:, :history].unbind(dim=1), first[:, -1]]
    errors = [(first[:, -1] - z[:, history]).square().mean()]
    for begin in range(1, z.shape[1] - history):
        window = [part[:, begin : begin + history] for part in modulations]
        following = model.step(torch.stack(states[begin:], dim=1), window, last_only=True)[:, 0]
        errors.append((following - z[:, begin + history]).square().mean())
        states.append(following)
    return (one_step + torch.stack(errors).mean()) / 2
