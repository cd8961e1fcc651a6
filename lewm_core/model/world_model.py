"""The world model: pictures to latent states, states and actions to next states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lewm_core.model.action_encoder import ActionEncoder
from lewm_core.model.config import IMAGE_MEAN, IMAGE_STD, ModelConfig
from lewm_core.model.encoder import make_encoder
from lewm_core.model.predictor import condition_dim, make_predictor
from lewm_core.model.projector import Projector
from lewm_core.model.proposal import Proposal


class WorldModel(nn.Module):
    """A joint-embedding predictive world model (LeWM, arXiv 2603.19312).

    Letters in shapes: B batch, T time in frames, C cameras, D latent, S candidates, A numbers in a
    command, F control steps in a block. Block t is what is executed from frame t to frame t + 1.

    A latent state is the embedding of what the cameras see (E numbers) and behind it, for models
    that are given some, the P state fields, standardised: D = E + P. A goal is a picture, so goals
    have E numbers and are compared with the first E of a state.

    A new model is in training mode, where batch normalisation mixes the pictures of a batch and
    dropout is on; `eval` before use. `lewm_core.load` gives a model in eval mode.

    Attributes:
        config: Every setting that it was built from.
        contract: The robot's contract it was trained for, as a dictionary; None if unknown.
        metadata: How it was trained; see `lewm_core.model.checkpoint`.
        proposal: What proposes actions for a goal, trained after the model; None if there is none.
        action_mean: (A,) buffer, mean of the training actions in the contract's units.
        action_std: (A,) buffer, their standard deviation.
        state_mean: (P,) buffer, mean of the state fields it is given; only where there are some.
        state_std: (P,) buffer, their standard deviation.
    """

    action_mean: Tensor
    action_std: Tensor
    state_mean: Tensor
    state_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.contract: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {}
        self.proposal: Proposal | None = None
        predictor = config.predictor
        if config.inputs.state is True:
            raise ValueError("inputs.state is true: name the fields that the model is given")
        dim = config.latent_dim
        self.encoder = make_encoder(config.encoder, config.inputs)
        self.projector = Projector(
            self.encoder.feature_dim, config.embedding_dim, config.projector
        )
        self.action_encoder = ActionEncoder(
            config.block_dim, condition_dim(config.history, predictor), config.action_encoder
        )
        self.predictor = make_predictor(dim, config.history, predictor)
        self.prediction_projector = nn.Identity()
        if predictor.projector is not None:
            self.prediction_projector = Projector(dim, dim, predictor.projector)
        if predictor.residual:
            self._start_as_identity()
        self.register_buffer("action_mean", torch.zeros(config.action_dim))
        self.register_buffer("action_std", torch.ones(config.action_dim))
        if config.state_dim:
            self.register_buffer("state_mean", torch.zeros(config.state_dim))
            self.register_buffer("state_std", torch.ones(config.state_dim))
        cameras = config.inputs.number_of_cameras
        mean = torch.tensor(IMAGE_MEAN).repeat(cameras)
        std = torch.tensor(IMAGE_STD).repeat(cameras)
        # For pictures in 0..255: (x / 255 - mean) / std = x * gain + offset.
        self.register_buffer("_gain", (1 / (255 * std)).view(-1, 1, 1), persistent=False)
        self.register_buffer("_offset", (-mean / std).view(-1, 1, 1), persistent=False)
        for name in ("gain", "offset"):
            row = getattr(self, f"_{name}").flatten().repeat(config.image_size)
            self.register_buffer(f"_row_{name}", row, persistent=False)

    @property
    def history(self) -> int:
        """Most latent states that a prediction looks back on."""
        return self.config.history

    @property
    def frame_skip(self) -> int:
        """F, control steps in a block."""
        return self.config.frame_skip

    @property
    def action_dim(self) -> int:
        """A, numbers in one command."""
        return self.config.action_dim

    @property
    def embedding_dim(self) -> int:
        """E, size of the embedding of what the cameras see, and of a goal."""
        return self.config.embedding_dim

    @property
    def state_dim(self) -> int:
        """P, state fields that it is given."""
        return self.config.state_dim

    @property
    def latent_dim(self) -> int:
        """D = E + P, size of a latent state."""
        return self.config.latent_dim

    def set_action_statistics(
        self, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
    ) -> None:
        """Set what actions are normalised by.

        Args:
            mean: (A,) in the contract's units.
            std: (A,), above 0.

        Raises:
            ValueError: Another shape, not finite, or a standard deviation of 0 or less.
        """
        mean, std = _statistics("action", mean, std, self.action_dim)
        self.action_mean.copy_(mean)
        self.action_std.copy_(std)

    def set_state_statistics(
        self, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]
    ) -> None:
        """Set what state fields are standardised by.

        Args:
            mean: (P,) in the contract's units.
            std: (P,), above 0.

        Raises:
            ValueError: Another shape, not finite, or a standard deviation of 0 or less.
        """
        mean, std = _statistics("state", mean, std, self.state_dim)
        if self.state_dim:
            self.state_mean.copy_(mean)
            self.state_std.copy_(std)

    def normalise_actions(self, actions: Tensor) -> Tensor:
        """Turn blocks of commands (..., F, A) into normalised blocks (..., F*A).

        Each of the A numbers gets mean 0 and standard deviation 1 over the training data. A
        missing command (NaN) becomes 0, the mean command.

        Raises:
            ValueError: The last two sizes are not F and A.
        """
        if actions.ndim < 2 or actions.shape[-2:] != (self.frame_skip, self.action_dim):
            raise ValueError(
                f"actions have shape {tuple(actions.shape)}, expected "
                f"(..., F={self.frame_skip}, A={self.action_dim})"
            )
        normalised = (actions.to(self.action_mean.dtype) - self.action_mean) / self.action_std
        return torch.where(normalised.isnan(), 0.0, normalised).flatten(-2)

    def denormalise_actions(self, blocks: Tensor) -> Tensor:
        """Turn normalised blocks (..., F*A) into commands (..., F, A) in the contract's units.

        Raises:
            ValueError: The last size is not F*A.
        """
        self._expect("blocks", blocks, (None,) * (blocks.ndim - 1) + (self.config.block_dim,))
        commands = blocks.unflatten(-1, (self.frame_skip, self.action_dim))
        return commands * self.action_std + self.action_mean

    def encode(self, frames: Tensor, states: Tensor | None = None) -> Tensor:
        """Encode what is seen, and measured, at some moments as latent states.

        Every moment is encoded by itself. The result is float32 also under autocast.

        Args:
            frames: (B, T, 3 C, H, W), uint8 RGB, the pictures of the C cameras one after the
                other; H and W are ``config.encoder.image_size``.
            states: (B, T, P) in the contract's units, for models that are given state fields; a
                field that was not measured (NaN) becomes 0, its mean.

        Returns:
            (B, T, D); without ``states`` the part that pictures decide, (B, T, E), which is what
            goals are.

        Raises:
            ValueError: Another type, number of dimensions, or size.
        """
        size = self.config.image_size
        self._expect("frames", frames, (None, None, self.config.picture_channels, size, size))
        if frames.dtype != torch.uint8:
            raise ValueError(f"frames are {frames.dtype}, expected torch.uint8 in 0..255")
        features = self.encoder(self._normalise_pictures(frames.flatten(0, 1)))
        seen = self.projector(features).float().unflatten(0, frames.shape[:2])
        if states is None or (not self.state_dim and states.shape[-1] == 0):
            return seen
        self._expect("states", states, (*frames.shape[:2], self.state_dim))
        measured = (states.float() - self.state_mean) / self.state_std
        return torch.cat([seen, torch.where(measured.isnan(), 0.0, measured)], dim=-1)

    def _normalise_pictures(self, pictures: Tensor) -> Tensor:
        """Turn pictures (N, 3 C, H, W) of bytes into normalised floats of the same shape."""
        if pictures.device.type != "cpu":
            return torch.addcmul(self._offset, pictures, self._gain)
        # Convolutions on a CPU are twice as fast with the channels last; turned around while the
        # pictures are still bytes. Three channels are too few to compute with at once, so a whole
        # row of pixels is: more than twice as fast.
        rows = pictures.permute(0, 2, 3, 1).flatten(2).float()
        rows.mul_(self._row_gain).add_(self._row_offset)
        return rows.unflatten(2, (-1, pictures.shape[1])).permute(0, 3, 1, 2)

    def predict(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict the state after each state (B, T, D), under normalised blocks (B, T, F*A).

        Causal: prediction t depends on states and blocks 0..t only, the first of which counts as
        the oldest of the history. At most ``config.history`` states.

        Returns:
            (B, T, D), float32.

        Raises:
            ValueError: Shapes that do not fit together or a history that is too long.
        """
        self._expect("z", z, (None, None, self.latent_dim))
        self._expect("actions", actions, (*z.shape[:2], self.config.block_dim))
        self._check_history(z.shape[1])
        return self.step(z, self.modulations(actions))

    def step(self, z: Tensor, modulations: list[Tensor], last_only: bool = False) -> Tensor:
        """Predict like `predict`, without checks, from modulations that were computed before.

        Args:
            z: (N, T, D), T at most ``config.history``.
            modulations: Of the blocks that leave these states, by `modulations`; (N, T, m) each.
            last_only: Only the prediction behind the last state.

        Returns:
            (N, T, D), or (N, 1, D) with ``last_only``; float32.
        """
        change = self.prediction_projector(self.predictor(z, modulations, last_only)).float()
        if not self.config.predictor.residual:
            return change
        return (z[:, -1:] if last_only else z) + change

    def modulations(self, actions: Tensor) -> list[Tensor]:
        """Return what normalised blocks (..., F*A) do to the predictor: tensors (..., m).

        One for each layer of a transformer, m = 6 * width; one for each age at which a block can
        act in an MLP, m = width.

        It depends on nothing but the block, so whoever predicts from one block in several
        windows computes it once.
        """
        return self.predictor.modulations(self.action_encoder(actions))

    def rollout(self, z: Tensor, past_actions: Tensor, future_actions: Tensor) -> Tensor:
        """Imagine what each of S candidates would lead to, one block after the other.

        Predictions are fed back; each looks back on the last ``config.history`` states. Gradients
        reach ``future_actions`` unless the caller turns them off.

        Args:
            z: (B, T, D), encoded frames one block apart, oldest first, newest last; T is 1 to
                ``config.history``.
            past_actions: (B, T-1, F*A), normalised blocks executed between those frames.
            future_actions: (B, S, horizon, F*A), normalised candidates; the first block leaves
                the newest frame.

        Returns:
            (B, S, horizon, D), float32: at place h the state after block h.

        Raises:
            ValueError: Shapes that do not fit together, a history that is too long, or a model in
                training mode, in which candidates would change each other's result.
        """
        batch, known = self.check_rollout(z, past_actions)
        candidates, horizon = self.check_candidates(z, future_actions)
        # The past is looked at once for all candidates, every future block once for all steps.
        past = [
            part[:, None].expand(-1, candidates, -1, -1) for part in self.modulations(past_actions)
        ]
        modulations = [
            torch.cat(parts, dim=2).flatten(0, 1)
            for parts in zip(past, self.modulations(future_actions), strict=True)
        ]
        states = z[:, None].expand(-1, candidates, -1, -1).flatten(0, 1)
        for end in range(known, known + horizon):
            start = max(0, end - self.history)
            window = [part[:, start:end] for part in modulations]
            following = self.step(states[:, start:end], window, last_only=True)
            states = torch.cat([states, following], dim=1)
        return states[:, known:].unflatten(0, (batch, candidates))

    def check_rollout(self, z: Tensor, past_actions: Tensor) -> tuple[int, int]:
        """Return B and T of what a rollout begins with; see `rollout`.

        Raises:
            ValueError: Shapes that do not fit together, a history that is too long, or a model in
                training mode.
        """
        if self.training:
            raise ValueError("rollout needs eval mode: call model.eval() first")
        batch, known, _ = self._expect("z", z, (None, None, self.latent_dim))
        self._check_history(known)
        self._expect("past_actions", past_actions, (batch, known - 1, self.config.block_dim))
        return batch, known

    def check_candidates(self, z: Tensor, future_actions: Tensor) -> tuple[int, int]:
        """Return S and horizon of a rollout's candidates; see `rollout`.

        Raises:
            ValueError: Shapes that do not fit together.
        """
        block = self.config.block_dim
        _, candidates, horizon, _ = self._expect(
            "future_actions", future_actions, (z.shape[0], None, None, block)
        )
        return candidates, horizon

    def _start_as_identity(self) -> None:
        """Let a residual model begin with "nothing changes"."""
        last = self.predictor.output
        if isinstance(self.prediction_projector, Projector):
            last = self.prediction_projector.net[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _check_history(self, length: int) -> None:
        if not 1 <= length <= self.history:
            raise ValueError(f"z holds {length} states, expected 1 to history={self.history}")

    @staticmethod
    def _expect(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> torch.Size:
        """Return the tensor's shape, or raise when it differs from ``shape`` (None: any size)."""
        fits = tensor.ndim == len(shape) and all(
            wanted is None or wanted == size
            for wanted, size in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({wanted})")
        return tensor.shape


def goal_difference(states: Tensor, goal: Tensor) -> Tensor:
    """Return states (..., D) less a goal (..., E), in the first E dimensions: (..., E).

    What a state holds behind them, the state fields that a model is given, no goal picture says.
    """
    return states[..., : goal.shape[-1]] - goal

def _statistics(
    what: str, mean: Tensor | Sequence[float], std: Tensor | Sequence[float], size: int
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation as float32 tensors (size,) on the CPU, checked."""
    mean = torch.as_tensor(mean, dtype=torch.float32).cpu()
    std = torch.as_tensor(std, dtype=torch.float32).cpu()
    for name, value in (("mean", mean), ("std", std)):
        if value.shape != (size,):
            raise ValueError(
                f"{what} {name} has shape {tuple(value.shape)}, expected ({size},)"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{what} {name} is not finite: {value.tolist()}")
    if not bool((std > 0).all()):
        raise ValueError(f"{what} std must be above 0: {std.tolist()}")
    return mean, std
