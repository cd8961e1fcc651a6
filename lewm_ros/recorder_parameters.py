"""The parameters of node ``record_dataset``."""

from __future__ import annotations

from typing import Any

from lewm_core.errors import ConfigError
from lewm_ros.runtime import declare

#: Default of settle_time, s: fifty of the heartbeats after which a message that was lost on the
#: way is asked for again (20 ms, config/fastdds).
SETTLE_S = 1.0


def declare_parameters(node: Any) -> dict[str, Any]:
    """Declare all parameters and return their values.

    Raises:
        ConfigError: A value has another type, is out of range, or does not go with another one.
    """
    entries = [
        ("out", "", "Folder of the dataset; made if missing, continued if its contract is the "
         "same.", {}),
        ("contract", "push_t", "Contract: a YAML file, or the name of one that ships.", {}),
        ("extra_topics", [""], "Topics recorded besides the contract's, of any type.", {}),
        ("autostart", False, "Begin an episode at once.", {}),
        ("follow_events", False, "Begin and end episodes by the events on /episode; an episode "
         "that ends with the label 'discard' is deleted.", {}),
        ("settle_time", SETTLE_S, "s of real time after the event that ends an episode for which "
         "its messages may still arrive, even while the next one is on.",
         {"minimum": 0.0, "maximum": 5.0}),
        ("episode_prefix", "episode_", "Episodes without a name of their own are called this and "
         "a number.", {}),
        ("storage", "mcap", "Of the bags.", {"choices": ("mcap", "sqlite3")}),
        ("queue_mib", 1024.0, "MiB that may wait for a disk that stalls; beyond it messages are "
         "dropped and counted.", {"minimum": 0.001, "maximum": 65536.0}),
        ("minimum_free_gib", 2.0, "GiB of disk that stay free: the recorder stops before.",
         {"minimum": 0.0, "maximum": 1e6}),
        ("pre_trigger", 0.0, "s; what came in this time before start_episode is part of the "
         "episode.", {"minimum": 0.0, "maximum": 60.0}),
        ("pre_trigger_mib", 256.0, "MiB that pre_trigger may keep in memory; beyond it the oldest "
         "messages go.", {"minimum": 0.001, "maximum": 65536.0}),
        ("quota_gib", 0.0, "GiB this node may record in all; 0: no limit.",
         {"minimum": 0.0, "maximum": 1e6}),
    ]  # fmt: skip
    values = {
        name: declare(node, name, default, description, **limits)
        for name, default, description, limits in entries
    }
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
    return values
