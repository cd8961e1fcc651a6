"""The parameters of node ``doctor``: all are read once, as it looks once and ends."""

from __future__ import annotations

from lewm_ros.parameters import Change, Declaration

_START = Change.START

DECLARATIONS: tuple[Declaration, ...] = (
    Declaration(
        "contract", "",
        "Contract: a YAML file, or the name of one that ships; empty: the checkpoint's, or push_t.",
        _START,
    ),
    Declaration(
        "checkpoint", "", "Folder of the checkpoint to plan with; empty: none.", _START
    ),
    Declaration(
        "seconds", 3.0, "How long topics are listened to [s of real time].", _START, 0.5, 600.0
    ),
    Declaration(
        "wait", 5.0, "How long to wait for topics that are not there yet [s of real time].",
        _START, 0.0, 600.0,
    ),
    Declaration(
        "out", "",
        "Folder that recordings go to; empty: the current one, and its disk never fails.", _START,
    ),
    Declaration(
        "minimum_free_gib", 2.0, "The recorder's: GiB of disk that stay free.", _START, 0.0, 1e6
    ),
    Declaration("planner", "planner", "Name of the planner's node, with its namespace.", _START),
    Declaration("json", "", "File for the findings as JSON; empty: none.", _START),
)
