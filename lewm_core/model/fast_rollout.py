"""Rollouts of many candidates from one history, without computing anything twice.

`WorldModel.rollout` is the reference: it runs the whole predictor on the whole window for every
block. Here the same numbers come from less work:

- what does not depend on the candidates (the tokens of the past) is computed once for a plan, not
  once for every candidate in every round;
- while the window grows, the keys and values of its earlier tokens stay as they are;
- in the last layer only the newest token is carried to the end;
- the oldest token of a window sees nobody but itself: its attention is one small linear map;
- affine parts of normalisations are folded into the linear maps behind them, and attention over
  three tokens is a few products of vectors instead of a batch of thousands of tiny matrices.

Matrix products run in ``dtype`` (bfloat16 doubles to triples their rate on processors that have
it), and with them the transformer's residual stream, because casting it to and fro costs more than
it gains; states, the MLP predictor's residual stream and the change of a state are float32.
Gradients do not flow through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, silu

from lewm_core.model.fused_linear import FusedLinear
from lewm_core.model.imagination import Actor, ModuleActor
from lewm_core.model.mlp_predictor import MlpPredictor
from lewm_core.model.predictor import ConditionedLayer, Predictor
from lewm_core.model.projector import Projector
from lewm_core.model.world_model import WorldModel

#: From candidates ``(B, S, horizon, F*A)`` to the states after each block ``(B, S, horizon, D)``.
Rollout = Callable[[Tensor], Tensor]


class FastRollout:
    """A world model for planning: the same interface, with a faster `rollout`.

    Everything but `begin` and `rollout` is the model's own, so a solver or a controller takes it
    in the model's place. Later changes of the model's weights do not reach it.

    Args:
        model: In eval mode. Its projector behind the predictor may have batch or layer
            normalisation or none.
        dtype: Of the matrix products; float32 agrees with the reference up to rounding.

    Attributes:
        model: The reference.
        dtype: As given.
    """

    def __init__(self, model: WorldModel, dtype: torch.dtype = torch.float32) -> None:
        if model.training:
            raise ValueError("a fast rollout needs eval mode: call model.eval() first")
        self.model = model
        self.dtype = dtype
        self._build()

    def _build(self) -> None:
        kind = _MlpSteps if isinstance(self.model.predictor, MlpPredictor) else _TransformerSteps
        self._device = self.model.action_mean.device
        with torch.no_grad():
            self._steps = kind(self.model, self.dtype)

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # while unpickling or copying, before there is one
            raise AttributeError(name)
        return getattr(self.model, name)

    def rollout(self, z: Tensor, past_actions: Tensor, future_actions: Tensor) -> Tensor:
        """As `WorldModel.rollout`, same shapes; without gradients."""
        return self.begin(z, past_actions)(future_actions)

    def begin_acting(self, z: Tensor, past_actions: Tensor) -> Actor:
        """Begin an imagination block by block, for `imagine`; without gradients.

        Args:
            z: ``(N, T, D)``, encoded frames one block apart, newest last, ``T <= history``.
            past_actions: ``(N, T-1, F*A)`` normalised.
        """
        if self.model.action_mean.device != self._device:
            self._build()
        return self._steps.actor(z, past_actions)

    def begin(self, z: Tensor, past_actions: Tensor) -> Rollout:
        """Compute what all candidates of a plan share.

        Args:
            z: ``(B, T, D)``, encoded frames one block apart, newest last, ``T <= history``.
            past_actions: ``(B, T-1, F*A)`` normalised.

        Returns:
            What maps candidates ``(B, S, horizon, F*A)`` to states ``(B, S, horizon, D)``.
        """
        if self.model.action_mean.device != self._device:
            self._build()
        self.model.check_rollout(z, past_actions)
        with torch.no_grad():
            rollout = self._steps.begin(z.float(), past_actions)

        def checked(future_actions: Tensor) -> Tensor:
            self.model.check_candidates(z, future_actions)
            with torch.no_grad():
                return rollout(future_actions)

        return checked


class _Actions:
    """Blocks to conditions, as `ActionEncoder`, in some type."""

    def __init__(self, model: WorldModel, dtype: torch.dtype) -> None:
        encoder = model.action_encoder
        first, last = encoder.embed[0], encoder.embed[2]
        # Nothing stands between the 1x1 convolution and the first linear map: they are one.
        smooth = encoder.convolution.weight.detach().squeeze(-1)
        bias = linear(encoder.convolution.bias.detach(), first.weight.detach(), first.bias.detach())
        self.first = FusedLinear(first.weight.detach() @ smooth, bias, dtype)
        self.last = FusedLinear(last.weight, last.bias, dtype)

    def __call__(self, blocks: Tensor) -> Tensor:
        return self.last(self.first(blocks, "swish"))


class _Head:
    """What stands behind the predictor: a projector, or nothing."""

    def __init__(self, projector: nn.Module, dtype: torch.dtype) -> None:
        self.first: FusedLinear | None = None
        if not isinstance(projector, Projector):
            return
        first, norm, _, last = projector.net
        weight, bias = first.weight.detach().float(), first.bias.detach().float()
        self.norm = norm if isinstance(norm, nn.LayerNorm) else None
        if isinstance(norm, nn.BatchNorm1d):
            gain = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            weight = weight * gain[:, None]
            bias = (bias - norm.running_mean) * gain + norm.bias.detach()
        self.first = FusedLinear(weight, bias, dtype)
        self.last = FusedLinear(last.weight, last.bias, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        if self.first is None:
            return x
        if self.norm is None:
            return self.last(self.first(x, "gelu"))
        return self.last(gelu(self.norm(self.first(x).float())))


class _Layer:
    """A `ConditionedLayer` on tokens laid out one after the other: ``(n, N, width)``."""

    def __init__(self, layer: ConditionedLayer, dtype: torch.dtype) -> None:
        attention = layer.attention
        self.heads = attention.heads
        self.width = attention.norm.normalized_shape[0]
        self.eps = attention.norm.eps
        query, key, value = attention.to_qkv.weight.detach().float().chunk(3)
        head_dim = len(query) // self.heads
        query = query * head_dim**-0.5
        out = attention.to_out[0]
        out_weight, out_bias = out.weight.detach().float(), out.bias.detach().float()
        self.to_qkv = FusedLinear(torch.cat([query, key, value]), None, dtype, attention.norm)
        self.to_kv = FusedLinear(torch.cat([key, value]), None, dtype, attention.norm)
        self.to_query = FusedLinear(query, None, dtype, attention.norm)
        # The attention of a token that sees only itself is its value.
        self.alone = FusedLinear(out_weight @ value, out_bias, dtype, attention.norm)
        self.to_out = FusedLinear(out_weight, out_bias, dtype)
        norm, first, _, _, last, _ = layer.mlp
        self.mlp_eps = norm.eps
        self.mlp_first = FusedLinear(first.weight, first.bias, dtype, norm)
        self.mlp_last = FusedLinear(last.weight, last.bias, dtype)
        # Scales come as 1 + scale.
        modulation = layer.modulation[1]
        ones = torch.zeros_like(modulation.bias)
        for part in (1, 4):
            ones[part * self.width : (part + 1) * self.width] = 1.0
        self.modulation = FusedLinear(modulation.weight, modulation.bias + ones, dtype)

    def __call__(
        self,
        tokens: Tensor,
        modulation: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
        last_only: bool,
    ) -> Tensor:
        """Map ``(n, N, width)`` to the same, or to ``(1, N, width)`` with ``last_only``.

        Args:
            tokens: The newest of a window.
            modulation: ``(n, N, 6 * width)``.
            keys: ``(N or 1, heads, head_dim)`` of the window's earlier tokens; those of these
                tokens are appended.
            values: The same.
            last_only: Only the last token is wanted.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, dim=-1)
        x = self._normalised(tokens, scale, shift, self.eps)
        number, known = len(tokens), len(keys)
        if last_only:
            attended = self._last(x, keys, values)
            tokens, gate, mlp_scale, mlp_shift, mlp_gate = (
                part[-1:] for part in (tokens, gate, mlp_scale, mlp_shift, mlp_gate)
            )
        else:
            outputs = []
            first = 0
            if known == 0:
                self._remember(self.to_kv(x[0]), keys, values)
                outputs.append(self.alone(x[:1]))
                first = 1
            if first < number:
                query, key, value = self.to_qkv(x[first:]).chunk(3, dim=-1)
                seen = []
                for token in range(number - first):
                    keys.append(self._split(key[token]))
                    values.append(self._split(value[token]))
                    seen.append(self._attend(self._split(query[token]), keys, values))
                outputs.append(self.to_out(torch.stack(seen)))
            attended = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        tokens = torch.addcmul(tokens, gate, attended)
        x = self._normalised(tokens, mlp_scale, mlp_shift, self.mlp_eps)
        return torch.addcmul(tokens, mlp_gate, self.mlp_last(self.mlp_first(x, "gelu")))

    def _last(self, x: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """What the last of tokens ``x`` sees: ``(1, N, width)``; keys and values of all."""
        for pair in self.to_kv(x):
            self._remember(pair, keys, values)
        if len(keys) == 1:
            return self.alone(x)
        query = self._split(self.to_query(x[-1]))
        return self.to_out(self._attend(query, keys, values))[None]

    def _remember(self, pair: Tensor, keys: list[Tensor], values: list[Tensor]) -> None:
        key, value = pair.chunk(2, dim=-1)
        keys.append(self._split(key))
        values.append(self._split(value))

    def _split(self, tensor: Tensor) -> Tensor:
        return tensor.unflatten(-1, (self.heads, -1))

    def _normalised(self, tokens: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        """Both normalisations before a linear map; the second's affine part is in the map."""
        x = layer_norm(tokens, (self.width,), eps=1e-6)
        x = torch.addcmul(shift, x, scale)
        return layer_norm(x, (self.width,), eps=eps)

    @staticmethod
    def _attend(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """``(N, heads, head_dim)`` each; returns ``(N, heads * head_dim)``."""
        # Sums over a head as a product with ones: `sum` would make a copy in float32 first.
        ones = query.new_ones(query.shape[-1], 1)
        scores = torch.stack([(query * key) @ ones for key in keys])
        weights = scores.softmax(0)
        seen = weights[0] * values[0]
        for weight, value in zip(weights[1:], values[1:], strict=True):
            seen = torch.addcmul(seen, weight, value)
        return seen.flatten(-2)


class _TransformerSteps:
    """Rollouts of `Predictor`."""

    def __init__(self, model: WorldModel, dtype: torch.dtype) -> None:
        predictor = model.predictor
        assert isinstance(predictor, Predictor)
        self.model = model
        self.dtype = dtype
        self.history = model.history
        self.residual = model.config.predictor.residual
        self.actions = _Actions(model, dtype)
        self.layers = [_Layer(layer, dtype) for layer in predictor.layers]
        self.positions = predictor.positions.detach().float()[0]
        self.input = self._map(predictor.input, dtype)
        self.norm = predictor.norm
        self.output = self._map(predictor.output, dtype)
        self.head = _Head(model.prediction_projector, dtype)

    @staticmethod
    def _map(module: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        if isinstance(module, nn.Linear):
            return FusedLinear(module.weight, module.bias, dtype)
        return module

    def actor(self, z: Tensor, past_actions: Tensor) -> Actor:
        """See `FastRollout.begin_acting`: few rows, for which the model itself is as good."""
        return ModuleActor(self.model, z, past_actions)

    def modulations(self, blocks: Tensor) -> list[Tensor]:
        conditions = silu(self.actions(blocks))
        return [layer.modulation(conditions) for layer in self.layers]

    def begin(self, z: Tensor, past_actions: Tensor) -> Rollout:
        rows, known, _ = z.shape
        shared = []
        if known > 1:
            past = [part.transpose(0, 1) for part in self.modulations(past_actions)]
            # Tokens of the past stand at other positions in every window they are part of.
            for start in range(known - 1):
                shared.append(self._shared(z.transpose(0, 1), past, start, known - 1))

        def rollout(future_actions: Tensor) -> Tensor:
            return self._rollout(z, shared, future_actions)

        return rollout

    def _shared(
        self, z: Tensor, past: list[Tensor], start: int, end: int
    ) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Keys and values of tokens ``start .. end - 1`` in every layer, ``(B, heads, ...)``."""
        tokens = self.input(z[start:end] + self.positions[: end - start, None]).to(self.dtype)
        memory = []
        for layer, modulation in zip(self.layers, past, strict=True):
            keys: list[Tensor] = []
            values: list[Tensor] = []
            tokens = layer(tokens, modulation[start:end], keys, values, False)
            memory.append((keys, values))
        return memory

    def _rollout(self, z: Tensor, shared: list, future_actions: Tensor) -> Tensor:
        rows, candidates, horizon, _ = future_actions.shape
        known = z.shape[1]
        # Token i leaves state i; those from `known - 1` on differ between candidates.
        newest = z[:, -1, None].expand(-1, candidates, -1).flatten(0, 1)
        states = [newest]
        blocks = future_actions.flatten(0, 1).transpose(0, 1).contiguous()
        modulations = self.modulations(blocks)

        def spread(tensor: Tensor) -> Tensor:
            if rows == 1:
                return tensor
            return tensor.repeat_interleave(candidates, dim=0)

        memory: list[tuple[list[Tensor], list[Tensor]]] = []
        window_start = -1
        for step in range(horizon):
            end = known + step
            start = max(0, end - self.history)
            first = end - 1
            if start != window_start:
                window_start = start
                first = max(start, known - 1)
                memory = [([], []) for _ in self.layers]
                if start < known - 1:
                    memory = [
                        ([spread(key) for key in keys], [spread(value) for value in values])
                        for keys, values in shared[start]
                    ]
            own = slice(first - known + 1, end - known + 1)
            tokens = torch.stack(states[own]) + self.positions[first - start : end - start, None]
            tokens = self.input(tokens).to(self.dtype)
            last = len(self.layers) - 1
            for number, layer in enumerate(self.layers):
                keys, values = memory[number]
                tokens = layer(tokens, modulations[number][own], keys, values, number == last)
            change = self.head(self.output(self.norm(tokens[-1].float()))).float()
            states.append(states[-1] + change if self.residual else change)
        return torch.stack(states[1:], dim=1).unflatten(0, (rows, candidates))


class _MlpSteps:
    """Rollouts of `MlpPredictor`: what each state and block adds to a window is computed once."""

    def __init__(self, model: WorldModel, dtype: torch.dtype) -> None:
        predictor = model.predictor
        assert isinstance(predictor, MlpPredictor)
        self.history = model.history
        self.residual = model.config.predictor.residual
        self.actions = _Actions(model, dtype)
        # Newest first, one map for every age.
        ages = predictor.states.weight.detach().chunk(self.history, dim=-1)
        self.states = FusedLinear(torch.cat(ages, dim=0), None, dtype)
        self.lengths = predictor.lengths.detach().float()
        self.layers = [
            (
                FusedLinear(layer.hidden.weight, layer.hidden.bias, dtype, layer.norm),
                FusedLinear(layer.output.weight, layer.output.bias, dtype),
                layer.norm.eps,
            )
            for layer in predictor.layers
        ]
        norm = predictor.norm
        self.width, self.eps = norm.normalized_shape[0], norm.eps
        self.output = FusedLinear(predictor.output.weight, predictor.output.bias, dtype, norm)
        self.head = _Head(model.prediction_projector, dtype)

    def _seen(self, z: Tensor, blocks: Tensor) -> Tensor:
        """What a state and the block that leaves it add at each age: ``(..., history * width)``."""
        return self.states(z).float() + self.actions(blocks).float()

    def begin(self, z: Tensor, past_actions: Tensor) -> Rollout:
        rows, known, _ = z.shape
        past = self._seen(z[:, :-1], past_actions).unflatten(-1, (self.history, -1))

        def rollout(future_actions: Tensor) -> Tensor:
            return self._rollout(z, past, future_actions)

        return rollout

    def _rollout(self, z: Tensor, past: Tensor, future_actions: Tensor) -> Tensor:
        rows, candidates, horizon, _ = future_actions.shape
        known = z.shape[1]
        state = z[:, -1, None].expand(-1, candidates, -1).flatten(0, 1)
        acted = self.actions(future_actions.flatten(0, 1).transpose(0, 1).contiguous()).float()
        own: list[Tensor] = []
        states = []
        for step in range(horizon):
            added = self.states(state).float() + acted[step]
            own.append(added.unflatten(-1, (self.history, -1)))
            end = known + step
            start = max(0, end - self.history)
            # One vector of a row for what is older than the candidates.
            base = self.lengths[end - start - 1].expand(rows, -1)
            for index in range(start, known - 1):
                base = base + past[:, index, end - 1 - index]
            x = own[-1][:, 0] + (base if rows == 1 else base.repeat_interleave(candidates, dim=0))
            for index in range(max(start, known - 1), end - 1):
                x = x + own[index - known + 1][:, end - 1 - index]
            state = self._following(x, state)
            states.append(state)
        return torch.stack(states, dim=1).unflatten(0, (rows, candidates))

    def _following(self, x: Tensor, state: Tensor) -> Tensor:
        """From what a window adds up to ``(N, width)`` to the state behind it ``(N, D)``."""
        for hidden, output, eps in self.layers:
            x = x + output(hidden(layer_norm(x, (self.width,), eps=eps), "gelu")).float()
        change = self.head(self.output(layer_norm(x, (self.width,), eps=self.eps))).float()
        return state + change if self.residual else change

    def actor(self, z: Tensor, past_actions: Tensor) -> Actor:
        """See `FastRollout.begin_acting`."""
        return _MlpActor(self, z, past_actions)


class _MlpActor:
    """What each state and block of a window adds is computed once; see `Actor`."""

    def __init__(self, steps: _MlpSteps, z: Tensor, past_actions: Tensor) -> None:
        self._steps = steps
        self.states = list(z.unbind(dim=1))[-2:]
        past = steps._seen(z[:, :-1], past_actions).unflatten(-1, (steps.history, -1))
        self._added = list(past.unbind(dim=1))

    def keep(self, rows: int) -> None:
        """Let only the first rows act on."""
        self.states = [state[:rows] for state in self.states]
        self._added = [added[:rows] for added in self._added]

    def act(self, block: Tensor) -> Tensor:
        """Predict the state behind a block."""
        steps, state = self._steps, self.states[-1]
        added = steps._seen(state, block).unflatten(-1, (steps.history, -1))
        window = [*self._added, added][-steps.history :]
        x = steps.lengths[len(window) - 1] + added[:, 0]
        for age, older in enumerate(reversed(window[:-1]), start=1):
            x = x + older[:, age]
        following = steps._following(x, state)
        self._added = window
        self.states = [state, following]
        return following
