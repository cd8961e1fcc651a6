"""A scripted expert for Push-T that makes purposeful contact.

It draws a target pose for the block, walks around the block to where a push turns and moves it
towards that pose, pushes through, and repeats; now and then it wanders. It sees the ground truth
(5,) only, so it drives the scene in this process or through ROS topics alike. Random pushing
instead would leave the block alone nearly always, and a world model learns nothing about a block
that never moves.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lewm_core.scenes.push_t.geometry import (
    CENTRE_OF_GRAVITY,
    HULL,
    OUTLINE,
    PUSHER_RADIUS,
    PUSHER_REACH,
    block_distance,
    draw_block_pose,
    to_block,
    to_board,
    wrap_angle,
)
from lewm_core.scenes.push_t.scene import SPEED_LIMIT

#: m of block motion that count as much as one radian: root of hinge over slide damping.
_TURN_LENGTH = 0.051
#: How much more a wanted turn counts than a wanted shift; at 1 the data turn the block less.
_TURN_WEIGHT = 2.0
#: Centre distance that a walk keeps to the block, m: radius and 3 mm.
_WALK_CLEARANCE = PUSHER_RADIUS + 0.003
#: Centre distance at which a push begins, m.
_STANDOFF = PUSHER_RADIUS + 0.010
#: Soft-max temperature over the agreement (cosine) of pushes with the wanted motion.
_TEMPERATURE = 0.12
#: 1/s; the target's velocity per metre to the next way point.
_WALK_GAIN = 9.0
#: Of the noise on every command, standard deviation, m/s; each push draws its own up to this.
_LARGEST_NOISE = 0.04
#: Share of choices that are not a push but 3 to 10 steps in any direction. A planner tries such
#: actions, so the data must show what they do.
_WANDER_SHARE = 0.08
#: Control steps after which a walk or a push is given up.
_PATIENCE = 40


def _outline_contacts() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on the outline that the pusher can press, and the inward normals: (P, 2), (P, 2)."""
    points, normals = [], []
    for start, end in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        edge = end - start
        length = float(np.linalg.norm(edge))
        # The outline runs counter-clockwise, so inside is to the left of each edge.
        normal = np.array((-edge[1], edge[0])) / length
        for fraction in np.linspace(0.0, 1.0, max(3, round(length / 0.007)))[1:-1]:
            point = start + fraction * edge
            if block_distance(point - normal * _STANDOFF) > PUSHER_RADIUS + 0.002:
                points.append(point)
                normals.append(normal)
    return np.array(points), np.array(normals)


def _ring_nodes() -> NDArray[np.float64]:
    """Way points around the block in its frame, (R, 2)."""
    nodes = []
    edges = np.roll(HULL, -1, axis=0) - HULL
    outward = np.stack((edges[:, 1], -edges[:, 0]), axis=1)
    angles = np.arctan2(outward[:, 1], outward[:, 0])
    for index, corner in enumerate(HULL):
        turn = wrap_angle(angles[index] - angles[index - 1])
        for fraction in (0.0, 0.5, 1.0):
            angle = angles[index - 1] + fraction * turn
            nodes.append(corner + 0.024 * np.array((math.cos(angle), math.sin(angle))))
    return np.array(nodes)


_CONTACTS, _NORMALS = _outline_contacts()
_RING = _ring_nodes()
#: Motion (m, m, m) of unit norm that a push along each contact's normal gives the block, in its
#: frame: (P, 3). A force moves the block along itself and turns it by its lever; damping makes
#: the motion proportional to force and torque.
_LEVERS = _CONTACTS - np.asarray(CENTRE_OF_GRAVITY)
_TWISTS = np.column_stack(
    (_NORMALS, (_LEVERS[:, 0] * _NORMALS[:, 1] - _LEVERS[:, 1] * _NORMALS[:, 0]) / _TURN_LENGTH)
)
_TWISTS /= np.linalg.norm(_TWISTS, axis=1, keepdims=True)


def _are_free(starts: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a pusher on the segments (..., 2) to (..., 2), block frame, clears the block."""
    fractions = np.linspace(0.0, 1.0, 25)[:, None]
    along = starts[..., None, :] + fractions * (ends - starts)[..., None, :]
    return block_distance(along).min(axis=-1) >= _WALK_CLEARANCE


_RING_FREE = _are_free(*np.broadcast_arrays(_RING[:, None], _RING[None, :]))
_RING_LENGTHS = np.linalg.norm(_RING[:, None] - _RING[None, :], axis=-1)


class PushTExpert:
    """Pushes the block towards random poses, with random speed, length, error and noise.

    Stateful: call `act` once per control step of 0.1 s with the newest ground truth, and `reset`
    at the beginning of every episode. The same seed and ground truths give the same commands.
    """

    def __init__(self, seed: int | None = None) -> None:
        """Begin with the random stream of ``seed``; None draws one from the system."""
        self._rng = np.random.default_rng(seed)
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget the episode; restart the random stream if ``seed`` is given."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._goal: NDArray[np.float64] | None = None
        self._pushes_left = 0
        self._begin_choice()

    def goal_state(self, ground_truth: ArrayLike) -> None:
        """There is none: target poses say which pushes to make, they are not reached."""
        return None

    def act(self, ground_truth: ArrayLike) -> NDArray[np.float64]:
        """Return the velocity (2,) in m/s of the pusher's target for the next control step.

        Args:
            ground_truth: ``agent_x agent_y block_x block_y block_angle`` (5,) in m and rad.

        Returns:
            (2,) m/s, within plus and minus 0.15 on each axis.
        """
        state = np.asarray(ground_truth, dtype=np.float64)
        self._steps += 1
        if self._phase == "walk" and self._block_moved(state):
            self._begin_choice()
        if self._phase == "choose":
            self._choose(state)
        if self._phase == "walk":
            velocity = self._walk(state)
        elif self._phase == "push":
            velocity = self._push(state)
        else:
            velocity = self._wander()
        velocity = velocity + self._rng.normal(0.0, self._noise, size=2)
        largest = np.abs(velocity).max()
        if largest > SPEED_LIMIT:
            velocity = velocity * (SPEED_LIMIT / largest)
        return velocity

    def _begin_choice(self) -> None:
        self._phase = "choose"
        self._steps = 0
        self._path: list[NDArray[np.float64]] = []

    def _block_moved(self, state: NDArray[np.float64]) -> bool:
        shift = np.hypot(*(state[2:4] - self._block_at_choice[:2]))
        turn = abs(wrap_angle(state[4] - self._block_at_choice[2]))
        return shift > 0.005 or turn > 0.1

    def _choose(self, state: NDArray[np.float64]) -> None:
        """Pick target pose, contact point, way there and manner of the next push."""
        rng = self._rng
        pose = state[2:]
        self._noise = rng.uniform(0.0, _LARGEST_NOISE)
        if rng.random() < _WANDER_SHARE:
            self._phase = "wander"
            self._wander_left = int(rng.integers(3, 11))
            self._wander_velocity = rng.uniform(-SPEED_LIMIT, SPEED_LIMIT, size=2)
            return
        if self._pushes_left == 0 or self._goal is None or self._is_near_goal(pose):
            self._goal = draw_block_pose(rng, margin=0.02)
            self._pushes_left = int(rng.integers(2, 8))
        self._pushes_left -= 1
        self._block_at_choice = pose.copy()
        agreement = _TWISTS @ self._wanted_twist(pose)
        # Gumbel noise makes the order of all contacts a draw from the soft-max.
        order = np.argsort(-(agreement / _TEMPERATURE + rng.gumbel(size=len(agreement))))
        starts = _CONTACTS - _NORMALS * _STANDOFF
        reachable = np.abs(to_board(starts, pose)).max(axis=1) <= PUSHER_REACH
        for index in order[reachable[order]][:8]:
            path = self._find_path(state, starts[index])
            if path is not None:
                self._path = path
                break
        else:
            # Nothing can be reached, as when the pusher is wedged: leave the block's middle.
            centre = to_board(np.asarray(CENTRE_OF_GRAVITY), pose)
            away = state[:2] - centre
            away /= max(float(np.linalg.norm(away)), 1e-6)
            self._path = [np.clip(state[:2] + 0.06 * away, -PUSHER_REACH, PUSHER_REACH)]
            index = order[0]
        self._phase, self._steps = "walk", 0
        self._contact = int(index)
        self._walk_speed = rng.uniform(0.15, 0.21)
        self._push_speed = rng.uniform(0.08, 0.15)
        self._push_length = rng.uniform(0.03, 0.13)
        self._push_error = rng.normal(0.0, 0.2)

    def _is_near_goal(self, pose: NDArray[np.float64]) -> bool:
        shift = np.hypot(*(pose[:2] - self._goal[:2]))
        return bool(shift < 0.015 and abs(wrap_angle(pose[2] - self._goal[2])) < 0.2)

    def _wanted_twist(self, pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """Motion (3,) of unit norm from ``pose`` to the target, of the gravity centre, in m."""
        centre = np.asarray(CENTRE_OF_GRAVITY)
        shift = to_block(to_board(centre, self._goal), pose) - centre
        turn = _TURN_WEIGHT * wrap_angle(self._goal[2] - pose[2]) * _TURN_LENGTH
        twist = np.array((shift[0], shift[1], turn))
        return twist / max(float(np.linalg.norm(twist)), 1e-9)

    def _find_path(
        self, state: NDArray[np.float64], end: NDArray[np.float64]
    ) -> list[NDArray[np.float64]] | None:
        """Shortest way on the board from the pusher to ``end`` (block frame), around the block.

        Returns:
            Way points (2,) on the board, m; None if there is no way.
        """
        pose = state[2:]
        start = to_block(state[:2], pose)
        if block_distance(start) < _WALK_CLEARANCE + 0.001:
            # In contact after a push: step straight off the block first.
            start = _step_off(start)
            prefix = [to_board(start, pose)]
        else:
            prefix = []
        nodes = np.vstack((_RING, start, end))
        count = len(_RING)
        free = np.zeros((count + 2, count + 2), dtype=bool)
        free[:count, :count] = _RING_FREE
        lengths = np.zeros((count + 2, count + 2))
        lengths[:count, :count] = _RING_LENGTHS
        for index in (count, count + 1):
            ends = np.broadcast_to(nodes[index], nodes.shape)
            free[index] = free[:, index] = _are_free(nodes, ends)
            lengths[index] = lengths[:, index] = np.linalg.norm(nodes - nodes[index], axis=1)
        on_board = np.abs(to_board(nodes, pose)).max(axis=1) <= PUSHER_REACH
        on_board[count] = True
        free &= on_board[None, :] & on_board[:, None]
        way = _shortest_way(free, lengths, count, count + 1)
        if way is None:
            return None
        return prefix + [to_board(nodes[index], pose) for index in way[1:]]

    def _walk(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        offset = self._path[0] - state[:2]
        distance = float(np.hypot(*offset))
        if distance < (0.007 if len(self._path) == 1 else 0.012):
            self._path.pop(0)
            if not self._path:
                self._begin_push(state)
                return self._push(state)
            offset = self._path[0] - state[:2]
            distance = float(np.hypot(*offset))
        elif self._steps > _PATIENCE:
            self._begin_choice()
        speed = min(_WALK_GAIN * distance, self._walk_speed)
        return offset * (speed / max(distance, 1e-9))

    def _begin_push(self, state: NDArray[np.float64]) -> None:
        self._phase, self._steps = "push", 0
        normal = _NORMALS[self._contact]
        angle = math.atan2(normal[1], normal[0]) + state[4] + self._push_error
        self._direction = np.array((math.cos(angle), math.sin(angle)))
        self._push_start = state[:2].copy()

    def _push(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        done = float((state[:2] - self._push_start) @ self._direction)
        # A push that a wall stops has made no way after a second and a half.
        stuck = self._steps > 15 and done < 0.02
        length = self._push_length + _STANDOFF - PUSHER_RADIUS
        if done > length or stuck or self._steps > _PATIENCE:
            self._begin_choice()
        return self._direction * self._push_speed

    def _wander(self) -> NDArray[np.float64]:
        self._wander_left -= 1
        if self._wander_left == 0:
            self._begin_choice()
        return self._wander_velocity


def _step_off(point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move a pusher centre (2,) in the block frame straight away from the block to clear it."""
    for _ in range(8):
        distance = float(block_distance(point))
        if distance >= _WALK_CLEARANCE + 0.004:
            break
        step = 1e-4
        slope = np.array(
            [
                float(block_distance(point + axis) - block_distance(point - axis))
                for axis in (np.array((step, 0.0)), np.array((0.0, step)))
            ]
        )
        slope /= max(float(np.linalg.norm(slope)), 1e-12)
        point = point + slope * (_WALK_CLEARANCE + 0.005 - distance)
    return point


def _shortest_way(
    free: NDArray[np.bool_], lengths: NDArray[np.float64], start: int, end: int
) -> list[int] | None:
    """Dijkstra on a dense graph: node indices from ``start`` to ``end``, or None."""
    best = {start: 0.0}
    before: dict[int, int] = {}
    queue = [(0.0, start)]
    while queue:
        length, node = heapq.heappop(queue)
        if node == end:
            way = [end]
            while way[-1] != start:
                way.append(before[way[-1]])
            return way[::-1]
        if length > best[node]:
            continue
        for neighbour in np.flatnonzero(free[node]).tolist():
            longer = length + float(lengths[node, neighbour])
            if longer < best.get(neighbour, math.inf):
                best[neighbour] = longer
                before[neighbour] = node
                heapq.heappush(queue, (longer, neighbour))
    return None
