"""The parameters of node ``record_dataset``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lewm_core.errors import ConfigError
from lewm_ros.lifecycle import autostart
from lewm_ros.parameters import Change, Declaration

#: Default of settle_time, s: fifty of the heartbeats after which a message that was lost on the
#: way is asked for again (20 ms, config/fastdds).
SETTLE_S = 1.0

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration(
        "out", "",
        "Folder of the dataset; made if missing, continued if its contract is the same.",
    ),
    Declaration(
        "contract", "push_t", "Contract: a YAML file, or the name of one that ships."
    ),
    Declaration(
        "extra_topics", [""], "Topics recorded besides the contract's, of any type."
    ),
    Declaration("record_at_start", False, "Begin an episode as soon as the node is active."),
    Declaration(
        "follow_events", False,
        "Begin and end episodes by the events on /episode; an episode that ends with the label "
        "'discard' is deleted.",
    ),
    Declaration(
        "settle_time", SETTLE_S,
        "s of real time after the event that ends an episode for which its messages may still "
        "arrive, even while the next one is on.", Change.LIVE, 0.0, 5.0,
    ),
    Declaration(
        "episode_prefix", "episode_",
        "Episodes without a name of their own are called this and a number.", Change.LIVE,
    ),
    Declaration("storage", "mcap", "Of the bags.", choices=("mcap", "sqlite3")),
    Declaration(
        "queue_mib", 1024.0,
        "MiB that may wait for a disk that stalls; beyond it messages are dropped and counted.",
        lowest=0.001, highest=65536.0,
    ),
    Declaration(
        "minimum_free_gib", 2.0, "GiB of disk that stay free: the recorder stops before.",
        Change.LIVE, 0.0, 1e6,
    ),
    Declaration(
        "pre_trigger", 0.0,
        "s; what came in this time before start_episode is part of the episode.",
        lowest=0.0, highest=60.0,
    ),
    Declaration(
        "pre_trigger_mib", 256.0,
        "MiB that pre_trigger may keep in memory; beyond it the oldest messages go.",
        lowest=0.001, highest=65536.0,
    ),
    Declaration(
        "quota_gib", 0.0, "GiB this node may record in all; 0: no limit.", Change.LIVE, 0.0, 1e6
    ),
    autostart(True),
)


def check_parameters(values: Mapping[str, Any]) -> None:
    """Judge the values of `DECLARATIONS` together.

    Raises:
        ConfigError: One is not usable, or does not go with another one.
    """
    if not values["out"]:
        raise ConfigError("parameter out is empty: give a folder, as in -p out:=data/mine")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", values["episode_prefix"]):
        raise ConfigError(
            f"parameter episode_prefix is {values['episode_prefix']!r}: use up to 64 letters, "
            "digits and _ . -"
        )
    if values["pre_trigger"] and values["follow_events"]:
        raise ConfigError(
            "parameter pre_trigger: with follow_events the stamps decide what belongs to an "
            "episode; set one of the two only"
        )
    if values["pre_trigger"] and values["pre_trigger_mib"] > values["queue_mib"]:
        raise ConfigError(
            f"parameter pre_trigger_mib: {values['pre_trigger_mib']:g} do not fit into queue_mib, "
            f"which is {values['queue_mib']:g}: they go through it when the episode begins"
        )
