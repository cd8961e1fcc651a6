"""From messages with stamps to a control grid: which picture and which action at which tick.

An episode's grid begins at its first picture: ``t_k = t_0 + k / control_rate``. A picture belongs
to the nearest tick, if it is within half a control period of it. The action of tick k is what was
commanded during ``[t_k, t_k+1)``. A silence of the camera longer than the contract's ``max_gap``
ends an episode; the next one gets a grid of its own.

Of several cameras the first one makes the grid. Each other one gives every tick its nearest
picture, within half a control period as well; a tick at which one of them has none counts as one
without a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lewm_core.data.bags import BagReader, RawMessage
from lewm_core.data.contract import Contract
from lewm_core.data.contract_parts import Action, NumberStream
from lewm_core.data.fields import FieldSelector
from lewm_core.errors import BagError

#: A command this much late still counts for the tick: stamps are rounded on their way.
TOLERANCE_NS = 1_000_000
#: Control ticks of an episode: eleven hours at 100 Hz. A few stamps can claim centuries.
MOST_TICKS = 4_000_000
#: ``mean`` needs commands in force during this part of a period.
_COVERED = 0.99

_NS_PER_S = 1_000_000_000


@dataclass
class Signal:
    """Numbers with stamps, sorted by stamp.

    Attributes:
        stamps_ns: ``(M,)`` int64 ns.
        values: ``(M, D)`` float64, in the contract's units.
    """

    stamps_ns: np.ndarray
    values: np.ndarray


@dataclass
class EpisodeStreams:
    """What a bag says, before it is put on a grid.

    Attributes:
        name: Of the episode.
        path: Of the bag.
        picture_stamps_ns: One per camera of the contract, ``(P,)`` int64 ns, in the order of
            receipt, by the camera's clock.
        actions: What the contract's ``action.source`` says, commands or what the robot did;
            ``(M, A)``.
        states: One per state topic of the contract.
        pictures: One per camera: the serialised picture messages in the order of receipt; None
            where they were not kept.
    """

    name: str
    path: str
    picture_stamps_ns: list[np.ndarray]
    actions: Signal
    states: list[Signal]
    pictures: list[list[RawMessage]] | None = field(default=None, repr=False)


@dataclass
class AlignedEpisode:
    """One episode on its control grid of K ticks.

    Attributes:
        name: Of the bag; pieces after a gap are called ``NAME+1``, ``NAME+2``, ...
        path: Of the bag.
        start_ns: Stamp of tick 0.
        frame_index: ``(K,)`` int32; number of the first camera's picture in the bag, in the order
            of receipt; -1 where there is none, or none of another camera.
        actions: ``(K, A)`` float32, in the contract's units; NaN where not valid.
        action_valid: ``(K,)`` bool; a command was in force.
        states: ``(K, S)`` float32; NaN where none was recorded.
        further_index: ``(K, C - 1)`` int32; numbers of the other cameras' pictures, likewise.
    """

    name: str
    path: str
    start_ns: int
    frame_index: np.ndarray
    actions: np.ndarray
    action_valid: np.ndarray
    states: np.ndarray
    further_index: np.ndarray

    @property
    def number_of_ticks(self) -> int:
        """K."""
        return len(self.frame_index)


def align_episode(reader: BagReader, contract: Contract) -> list[AlignedEpisode]:
    """Put a bag on the contract's control grid.

    Returns:
        The episodes in the bag: one, or several where the camera was silent for longer than
        ``max_gap``.

    Raises:
        BagError: Topics are missing, stamps cannot be used, or a selected field is not there.
    """
    return align_streams(read_streams(reader, contract), contract)


def read_streams(reader: BagReader, contract: Contract, keep_bytes: int = 0) -> EpisodeStreams:
    """Read stamps, commands and states of a bag.

    Args:
        reader: Of the bag.
        contract: Says which topics, fields and clocks; all its cameras are read.
        keep_bytes: Keep the picture messages if all of them together are not larger.

    Raises:
        BagError: Topics are missing, stamps cannot be used, or a selected field is not there.
    """
    reader.require(contract)
    learned = contract.action.learned
    collectors = {learned.topic: _Collector(reader, learned)}
    for state in contract.states:
        selectors = tuple(field.selector for field in state.fields)
        stream = NumberStream(state.topic, state.clock, selectors)
        collectors[state.topic] = _Collector(reader, stream)
    cameras = {camera.topic: camera for camera in contract.cameras}
    stamps: dict[str, list[int]] = {topic: [] for topic in cameras}
    pictures: dict[str, list[RawMessage]] | None = None
    if keep_bytes > 0:
        pictures = {topic: [] for topic in cameras}
    kept = 0
    for message in reader.raw([*cameras, *collectors]):
        if message.topic not in cameras:
            collectors[message.topic].add(message)
            continue
        stamps[message.topic].append(_stamp_ns(reader, message, cameras[message.topic].clock))
        if pictures is not None:
            kept += len(message.data)
            if kept <= keep_bytes:
                pictures[message.topic].append(message)
            else:
                pictures = None
    picture_stamps_ns = [np.array(stamps[topic], dtype=np.int64) for topic in cameras]
    for camera, stamps_ns in zip(contract.cameras, picture_stamps_ns, strict=True):
        _check_stamps(reader, camera.topic, camera.clock, stamps_ns, contract.max_gap)
    return EpisodeStreams(
        reader.name,
        str(reader.path),
        picture_stamps_ns,
        collectors[learned.topic].signal(contract.max_gap),
        [collectors[state.topic].signal(contract.max_gap) for state in contract.states],
        None if pictures is None else list(pictures.values()),
    )


def align_streams(streams: EpisodeStreams, contract: Contract) -> list[AlignedEpisode]:
    """Put what `read_streams` read on the contract's control grid.

    Raises:
        BagError: Pictures come more rarely than ``max_gap``, or commands and pictures do not
            overlap in time.
    """
    first_ns = streams.picture_stamps_ns[0]
    if not len(first_ns):
        # Counted by an index or metadata.yaml, which say what they like.
        raise BagError(
            f"{streams.path}: tells of pictures on {contract.camera.topic}, but has none; record "
            "it again or delete it"
        )
    order = np.argsort(first_ns, kind="stable")
    stamps_ns = first_ns[order]
    gap_ns = _to_ns(contract.max_gap)
    intervals = np.diff(stamps_ns)
    if len(intervals) and np.median(intervals) > gap_ns:
        raise BagError(
            f"{streams.path}: pictures come every {np.median(intervals) / _NS_PER_S:.3g} s, but "
            f"max_gap is {contract.max_gap:g} s, so every picture would end an episode; raise "
            "max_gap in the contract"
        )
    _check_overlap(streams, contract, stamps_ns)
    starts = np.concatenate([[0], np.flatnonzero(intervals > gap_ns) + 1])
    ends = np.concatenate([starts[1:], [len(stamps_ns)]])
    episodes = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        name = streams.name if number == 0 else f"{streams.name}+{number}"
        next_ns = stamps_ns[end] if end < len(stamps_ns) else None
        episodes.append(
            _align_piece(name, streams, contract, stamps_ns[start:end], order[start:end], next_ns)
        )
    return episodes


def _align_piece(
    name: str,
    streams: EpisodeStreams,
    contract: Contract,
    stamps_ns: np.ndarray,
    numbers: np.ndarray,
    next_ns: int | None,
) -> AlignedEpisode:
    """Align one stretch of pictures without a gap.

    Args:
        name: Of the episode.
        streams: Of the whole bag.
        contract: Of the bag.
        stamps_ns: ``(P,)`` sorted stamps of its pictures.
        numbers: ``(P,)`` their numbers in the bag.
        next_ns: Stamp of the first picture after it; None at the end of the bag.
    """
    period_ns = _NS_PER_S / contract.control_rate
    start_ns = int(stamps_ns[0])
    last_tick = round((int(stamps_ns[-1]) - start_ns) / period_ns)
    # Commands go on after the last picture, up to the next block's end; they are worth keeping.
    if len(streams.actions.stamps_ns):
        limit_ns = int(stamps_ns[-1]) + _to_ns(contract.max_gap)
        if next_ns is not None:
            limit_ns = min(limit_ns, int(next_ns) - 1)
        end_ns = min(limit_ns, int(streams.actions.stamps_ns[-1]))
        last_tick = max(last_tick, int((end_ns - start_ns + TOLERANCE_NS) // period_ns))
    if last_tick >= MOST_TICKS:
        raise BagError(
            f"{streams.path}: an episode of {last_tick + 1} control ticks, {MOST_TICKS} are "
            "allowed; mend the stamps or the contract's max_gap, or split the recording"
        )
    ticks_ns = start_ns + np.round(np.arange(last_tick + 1) * period_ns).astype(np.int64)
    actions, valid = _resample(streams.actions, contract.action, ticks_ns, period_ns)
    states = [
        _newest(signal, ticks_ns, _to_ns(contract.max_gap))[0] for signal in streams.states
    ]
    pictures = [_nearest_pictures(stamps_ns, numbers, ticks_ns, period_ns)]
    for further_ns in streams.picture_stamps_ns[1:]:
        order = np.argsort(further_ns, kind="stable")
        pictures.append(
            _nearest_pictures(further_ns[order], order, ticks_ns, period_ns, once=False)
        )
    index = np.stack(pictures, axis=1)
    index[(index < 0).any(axis=1)] = -1
    return AlignedEpisode(
        name,
        streams.path,
        start_ns,
        index[:, 0],
        actions.astype(np.float32),
        valid,
        np.concatenate(states, axis=1).astype(np.float32)
        if states
        else np.zeros((len(ticks_ns), 0), np.float32),
        index[:, 1:],
    )


def _nearest_pictures(
    stamps_ns: np.ndarray,
    numbers: np.ndarray,
    ticks_ns: np.ndarray,
    period_ns: float,
    once: bool = True,
) -> np.ndarray:
    """Return ``(K,)`` int32 numbers of the pictures nearest to the ticks, -1 where too far.

    With ``once`` no picture is given to two ticks.
    """
    if not len(stamps_ns):
        return np.full(len(ticks_ns), -1, np.int32)
    after = np.clip(np.searchsorted(stamps_ns, ticks_ns), 0, len(stamps_ns) - 1)
    before = np.maximum(after - 1, 0)
    use_before = np.abs(ticks_ns - stamps_ns[before]) <= np.abs(ticks_ns - stamps_ns[after])
    nearest = np.where(use_before, before, after)
    near = np.abs(ticks_ns - stamps_ns[nearest]) <= period_ns / 2
    if once:
        # A picture exactly between two ticks belongs to the earlier one only.
        near[1:] &= ~(near[:-1] & (nearest[1:] == nearest[:-1]))
    return np.where(near, numbers[nearest], -1).astype(np.int32)


def _resample(
    signal: Signal, action: Action, ticks_ns: np.ndarray, period_ns: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return actions ``(K, A)`` and whether they are valid ``(K,)``.

    A command older than the contract's timeout is not in force any more: the robot's side holds.
    """
    timeout_ns = _to_ns(action.timeout)
    if action.resample == "latest" or not len(signal.stamps_ns):
        return _newest(signal, ticks_ns, timeout_ns)
    ends_ns = ticks_ns + round(period_ns)
    total, covered = _integral(signal, timeout_ns, np.stack([ticks_ns, ends_ns]))
    length = covered[1] - covered[0]
    valid = length >= _COVERED * period_ns
    means = (total[1] - total[0]) / np.where(valid, length, 1.0)[:, None]
    return np.where(valid[:, None], means, np.nan), valid


def _newest(
    signal: Signal, ticks_ns: np.ndarray, oldest_ns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the newest values at each tick ``(K, D)``, NaN where older, and validity ``(K,)``."""
    if not len(signal.stamps_ns):
        nothing = np.full((len(ticks_ns), signal.values.shape[1]), np.nan)
        return nothing, np.zeros(len(ticks_ns), bool)
    index = np.searchsorted(signal.stamps_ns, ticks_ns + TOLERANCE_NS, side="right") - 1
    age_ns = ticks_ns - signal.stamps_ns[np.maximum(index, 0)]
    values = signal.values[np.maximum(index, 0)]
    valid = (index >= 0) & (age_ns <= oldest_ns + TOLERANCE_NS)
    valid &= np.isfinite(values).all(axis=1)
    return np.where(valid[:, None], values, np.nan), valid


def _integral(
    signal: Signal, timeout_ns: int, times_ns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate the piecewise constant signal from its beginning to ``times_ns``.

    Returns:
        Integral ``(..., D)`` in unit times ns, and how much of the time a command was in force
        ``(...)``, in ns.
    """
    stamps_ns = signal.stamps_ns
    finite = np.isfinite(signal.values).all(axis=1)
    values = np.where(finite[:, None], signal.values, 0.0)
    until_next = np.append(np.diff(stamps_ns), timeout_ns)
    in_force = np.minimum(until_next, timeout_ns) * finite
    zero = np.zeros((1, values.shape[1]))
    total = np.concatenate([zero, np.cumsum(values * in_force[:, None], axis=0)])
    covered = np.concatenate([[0.0], np.cumsum(in_force)])
    index = np.searchsorted(stamps_ns, times_ns, side="right") - 1
    current = np.maximum(index, 0)
    part = np.minimum(times_ns - stamps_ns[current], in_force[current]) * (index >= 0)
    return (
        total[current] + values[current] * part[..., None],
        covered[current] + part,
    )


class _Collector:
    """Gathers the selected numbers of one topic."""

    def __init__(self, reader: BagReader, entry: NumberStream) -> None:
        self._reader = reader
        self._entry = entry
        self._selectors = [FieldSelector.parse(selector) for selector in entry.selectors]
        self._stamps: list[int] = []
        self._values: list[list[float]] = []

    def add(self, message: RawMessage) -> None:
        """Decode one message and keep its numbers.

        Raises:
            BagError: A selected field is not in the message.
        """
        self._stamps.append(_stamp_ns(self._reader, message, self._entry.clock))
        decoded = self._reader.decode(message.type_name, message.data)
        try:
            self._values.append([selector.get(decoded) for selector in self._selectors])
        except LookupError as error:
            raise BagError(
                f"{self._reader.path}: message {len(self._stamps)} of {message.topic}: {error}; "
                "mend the selector in the contract"
            ) from error

    def signal(self, max_gap: float) -> Signal:
        """Return what was gathered, sorted by stamp.

        Raises:
            BagError: The stamps cannot be used.
        """
        stamps_ns = np.array(self._stamps, dtype=np.int64)
        _check_stamps(self._reader, self._entry.topic, self._entry.clock, stamps_ns, max_gap)
        values = np.array(self._values, dtype=np.float64).reshape(-1, len(self._selectors))
        order = np.argsort(stamps_ns, kind="stable")
        return Signal(stamps_ns[order], values[order])


def _stamp_ns(reader: BagReader, message: RawMessage, clock: str) -> int:
    if clock == "receive":
        return message.receive_ns
    stamp = reader.header_stamp_ns(message.type_name, message.data)
    if stamp is None:
        raise BagError(
            f"{reader.path}: {message.topic} has no header; set clock: receive in the contract"
        )
    return stamp


def _check_stamps(
    reader: BagReader, topic: str, clock: str, stamps_ns: np.ndarray, max_gap: float
) -> None:
    """Refuse stamps that were never set, and clocks that jump back."""
    if len(stamps_ns) > 1 and not stamps_ns.any():
        raise BagError(
            f"{reader.path}: all headers of {topic} carry stamp 0; set clock: receive in the "
            "contract, or let the driver set stamps"
        )
    back_ns = -int(np.diff(stamps_ns).min()) if len(stamps_ns) > 1 else 0
    if back_ns > _to_ns(max_gap):
        raise BagError(
            f"{reader.path}: the {clock} clock of {topic} jumps back by {back_ns / 1e9:.3g} s; "
            "record one episode per bag, or use the other clock"
        )


def _check_overlap(
    streams: EpisodeStreams, contract: Contract, picture_stamps_ns: np.ndarray
) -> None:
    commands_ns = streams.actions.stamps_ns
    if not len(commands_ns) or not len(picture_stamps_ns):
        return
    # A single command or picture at the edge is a short episode, not a wrong clock.
    apart_ns = max(
        int(commands_ns[0] - picture_stamps_ns[-1]), int(picture_stamps_ns[0] - commands_ns[-1])
    )
    if apart_ns > _to_ns(contract.max_gap):
        raise BagError(
            f"{streams.path}: pictures are stamped {picture_stamps_ns[0] / 1e9:.3f} to "
            f"{picture_stamps_ns[-1] / 1e9:.3f} s and commands {commands_ns[0] / 1e9:.3f} to "
            f"{commands_ns[-1] / 1e9:.3f} s, which do not overlap; their clocks differ: set "
            "clock: receive for both in the contract"
        )


def _to_ns(seconds: float) -> int:
    return round(seconds * _NS_PER_S)
