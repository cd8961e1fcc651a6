"""The training loss: prediction error plus SIGReg, one weight between them.

    loss = mean((prediction - z_next)^2) + weight * SIGReg(z)      (arXiv 2603.19312)

Both terms train the encoder: the target has no stop-gradient, no moving average, no pretrained
weights. SIGReg is taken per time step over the batch, of what the pictures become: state fields
that a model is given beside them are not learned and cannot collapse, and a regulariser over both
would keep out of the pictures' part whatever the fields say already, which a goal needs.

The prediction error with ``rollout_steps`` 1 is the paper's: every state of the clip that has a
predecessor is predicted from true states, by windows of at most ``history``. A clip of
``history + 1`` frames is one window; longer clips give overlapping ones.

With ``rollout_steps`` K > 1 the error is the average of K: that one-step error, which keeps every
length of true history trained, and the errors after 2..K steps of an autoregressive rollout that
starts from the first ``T - K`` states of the clip (at least one, at most ``history``). Later
windows then hold predictions, as they do while planning. It needs clips of K + 1 frames or more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lewm_core.model.config import LossConfig
from lewm_core.model.sigreg import SIGReg
from lewm_core.model.world_model import WorldModel


class LossTerms(NamedTuple):
    """What one step of training looks at.

    Attributes:
        total: Scalar to differentiate: prediction + weight * sigreg.
        prediction: Scalar, mean squared error of predicted states.
        sigreg: Scalar, without its weight. Near 1 it is satisfied; that does not say that the
            scene is encoded.
        embeddings: (B, T, D), the encoded clip, detached, for monitors.
    """

    total: Tensor
    prediction: Tensor
    sigreg: Tensor
    embeddings: Tensor


class LewmLoss(nn.Module):
    """Model, SIGReg and weight as one module, which is what data-parallel training wraps.

    `torch.nn.parallel.DistributedDataParallel` hooks into ``forward`` of the module it is given;
    the model by itself has none that training could use.
    """

    def __init__(
        self, model: WorldModel, config: LossConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.sigreg = SIGReg(
            config.directions, config.knots, config.upper, config.window, generator
        )

    def forward(
        self, frames: Tensor, actions: Tensor, states: Tensor | None = None
    ) -> LossTerms:
        """Return the loss of clips; see `lewm_loss` for arguments and errors."""
        return lewm_loss(
            self.model,
            self.sigreg,
            frames,
            actions,
            states,
            weight=self.config.weight,
            rollout_steps=self.config.rollout_steps,
            stop_gradient=self.config.stop_gradient,
        )


def lewm_loss(
    model: WorldModel,
    sigreg: SIGReg,
    frames: Tensor,
    actions: Tensor,
    states: Tensor | None = None,
    *,
    weight: float = 0.09,
    rollout_steps: int = 1,
    stop_gradient: bool = False,
) -> LossTerms:
    """Return the loss of clips.

    Args:
        model: The world model, in training mode while training.
        sigreg: The regulariser.
        frames: (B, T, 3 C, H, W), uint8.
        actions: (B, T, F, A) in the contract's units; block t is executed from frame t to t + 1,
            so the last block is not looked at and may be NaN, as may commands that are missing.
        states: (B, T, P), for models that are given state fields.
        weight: lambda.
        rollout_steps: K; see the head of this module.
        stop_gradient: Keep targets fixed. Popular in summaries of the method, not part of it.

    Raises:
        ValueError: Clips of one frame, or too short for ``rollout_steps``, or shapes that do not
            fit together.
    """
    length = frames.shape[1] if frames.ndim == 5 else 0
    if rollout_steps < 1 or length < rollout_steps + 1:
        raise ValueError(
            f"clips of {length} frames are too short for rollout_steps={rollout_steps}, "
            f"which needs {max(rollout_steps, 1) + 1} or more"
        )
    if actions.shape[:2] != frames.shape[:2]:
        raise ValueError(
            f"actions have shape {tuple(actions.shape)}, expected "
            f"({frames.shape[0]}, {length}, F, A): one block per frame"
        )
    z = model.encode(frames, states)
    target = z.detach() if stop_gradient else z
    # Once for all windows and steps below: it is a third of the predictor's work.
    modulations = model.modulations(model.normalise_actions(actions)[:, :-1])
    errors = [_one_step_error(model, z, target, modulations)]
    if rollout_steps > 1:
        errors += _rollout_errors(model, z, target, modulations, rollout_steps)
    prediction = torch.stack(errors).mean()
    regulariser = sigreg(z[..., : model.embedding_dim].transpose(0, 1))
    return LossTerms(prediction + weight * regulariser, prediction, regulariser, z.detach())


def _one_step_error(
    model: WorldModel, z: Tensor, target: Tensor, modulations: list[Tensor]
) -> Tensor:
    """Mean squared error of all next states from true ones, for z (B, T, D)."""
    size = min(model.history, z.shape[1] - 1)

    def windows(sequence: Tensor) -> Tensor:
        """All windows of ``size`` in (B, T-1, X), stacked as (B * windows, size, X)."""
        return sequence.unfold(1, size, 1).flatten(0, 1).transpose(1, 2)

    predicted = model.step(windows(z[:, :-1]), [windows(part) for part in modulations])
    return (predicted - windows(target[:, 1:])).square().mean()


def _rollout_errors(
    model: WorldModel, z: Tensor, target: Tensor, modulations: list[Tensor], steps: int
) -> list[Tensor]:
    """Mean squared errors after 2..steps predictions that are fed back, for z (B, T, D)."""
    start = min(model.history, z.shape[1] - steps)
    states = z[:, :start]
    errors = []
    for end in range(start, start + steps):
        begin = max(0, end - model.history)
        window = [part[:, begin:end] for part in modulations]
        following = model.step(states[:, begin:], window, last_only=True)
        states = torch.cat([states, following], dim=1)
        if end > start:
            errors.append((following - target[:, end : end + 1]).square().mean())
    return errors
