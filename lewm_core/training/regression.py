"""Small regressions on frozen embeddings: ridge in closed form, and an MLP with early stopping.

They serve the monitors here and the probes in `lewm_core.evaluation.probes`. Both report
R² = 1 - SSE / SST, where SST is taken around the mean of the *training* targets, so that
"predicts the mean" is 0 and a probe that is worse than the mean is negative.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

#: Columns whose standard deviation is below this are not scaled up: they are constant.
_CONSTANT = 1e-6


class Regression(Protocol):
    """Something that maps embeddings (N, D) to targets (N, K)."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return predictions (N, K) for inputs (N, D), in the targets' own units."""
        ...


class _Standardiser:
    """Shift and scale of columns, learned once."""

    def __init__(self, values: Tensor) -> None:
        self.mean = values.mean(0, keepdim=True)
        std = values.std(0, keepdim=True, unbiased=False)
        self.std = torch.where(std > _CONSTANT, std, torch.ones_like(std))

    def apply(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def invert(self, values: Tensor) -> Tensor:
        return values * self.std + self.mean


def fit_ridge(inputs: Tensor, targets: Tensor, penalty: float = 1e-3) -> Regression:
    """Fit a linear map with an intercept by ridge regression.

    Args:
        inputs: Embeddings (N, D).
        targets: Targets (N, K).
        penalty: Weight of the squared coefficients, relative to N, after both sides were
            scaled to standard deviation 1.

    Returns:
        A function (M, D) -> (M, K).

    Raises:
        ValueError: Fewer than two rows, or unequal numbers of rows.
    """
    inputs, targets = _checked(inputs, targets)
    scale_in, scale_out = _Standardiser(inputs), _Standardiser(targets)
    x, y = scale_in.apply(inputs), scale_out.apply(targets)
    gram = x.T @ x + penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ y)

    def predict(values: Tensor) -> Tensor:
        return scale_out.invert(scale_in.apply(values.double()) @ weights)

    return predict


def fit_mlp(
    inputs: Tensor,
    targets: Tensor,
    *,
    hidden: int = 128,
    epochs: int = 60,
    patience: int = 8,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> Regression:
    """Fit an MLP with two hidden layers; keep the weights that were best on a validation part.

    The validation part is the *end* of the rows: rows are expected in the order of their
    episodes, so that frames of one episode do not sit on both sides.

    Args:
        inputs: Embeddings (N, D).
        targets: Targets (N, K).
        hidden: Width of both hidden layers.
        epochs: Upper bound on passes over the rows.
        patience: Epochs without a better validation error before it stops.
        batch_size: Rows per step.
        learning_rate: Peak of a one-cycle schedule over all epochs.
        validation_fraction: Part of the rows kept for early stopping.
        seed: Makes the fit repeatable; the global random state is left as it was.

    Returns:
        A function (M, D) -> (M, K).

    Raises:
        ValueError: Fewer than two rows, or unequal numbers of rows.
    """
    inputs, targets = _checked(inputs, targets)
    kept_for_validation = max(1, int(len(inputs) * validation_fraction))
    fitted = len(inputs) - kept_for_validation
    scale_in, scale_out = _Standardiser(inputs[:fitted]), _Standardiser(targets[:fitted])
    x, y = scale_in.apply(inputs).float(), scale_out.apply(targets).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(x.shape[1], hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, y.shape[1]),
        )
        _train_mlp(network, x, y, fitted, epochs, patience, batch_size, learning_rate)

    def predict(values: Tensor) -> Tensor:
        with torch.no_grad():
            return scale_out.invert(network(scale_in.apply(values.double()).float()).double())

    return predict


def _train_mlp(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    fitted: int,
    epochs: int,
    patience: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    steps_per_epoch = max(1, -(-fitted // batch_size))
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=learning_rate, total_steps=epochs * steps_per_epoch
    )
    best, best_error, since_best = None, float("inf"), 0
    for _ in range(epochs):
        for rows in torch.randperm(fitted).split(batch_size):
            optimiser.zero_grad(set_to_none=True)
            nn.functional.mse_loss(network(x[rows]), y[rows]).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(network(x[fitted:]), y[fitted:]))
        if error < best_error:
            best = {name: value.clone() for name, value in network.state_dict().items()}
            best_error, since_best = error, 0
        else:
            since_best += 1
            if since_best >= patience:
                break
    if best is not None:
        network.load_state_dict(best)


def squared_errors(predicted: Tensor, targets: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Return the error of a prediction and of the constant ``baseline``, per column.

    Args:
        predicted: (N, K).
        targets: (N, K).
        baseline: (K,), usually the mean of the training targets.

    Returns:
        SSE (K,) and SST (K,), both float64.
    """
    targets = targets.double()
    residual = ((predicted.double() - targets) ** 2).sum(0)
    total = ((targets - baseline.double()) ** 2).sum(0)
    return residual, total


def r2_score(predicted: Tensor, targets: Tensor, baseline: Tensor) -> float:
    """Return one R² over all columns: 1 - sum of SSE / sum of SST; NaN if nothing varies.

    Args:
        predicted: (N, K).
        targets: (N, K).
        baseline: (K,), the mean of the training targets.
    """
    residual, total = squared_errors(predicted, targets, baseline)
    if float(total.sum()) <= _CONSTANT**2 * max(1, len(targets)):
        return float("nan")
    return float(1.0 - residual.sum() / total.sum())


def _checked(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} rows of inputs but {len(targets)} of targets")
    if len(inputs) < 2:
        raise ValueError(f"a regression needs two rows at least, got {len(inputs)}")
    return inputs.detach().cpu().double(), targets.detach().cpu().double()
