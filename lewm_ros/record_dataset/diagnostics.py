"""What a recorder says on ``/diagnostics``."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from lewm_ros.record_dataset.episode_file import EpisodeFile


def diagnostics(
    node: str, episode: EpisodeFile | None, error: object, warning: str
) -> DiagnosticArray:
    """Return the diagnostics of a recorder, without a stamp.

    Args:
        node: Name of the node.
        episode: The one that is on, if it has a file.
        error: Why nothing is recorded; None or empty: nothing is wrong.
        warning: What went wrong last; empty: nothing.
    """
    status = DiagnosticStatus(name=f"{node}: recording", hardware_id="")
    if error:
        status.level, status.message = DiagnosticStatus.ERROR, str(error)
    elif warning:
        status.level, status.message = DiagnosticStatus.WARN, warning
    else:
        status.level = DiagnosticStatus.OK
        status.message = f"recording {episode.name}" if episode is not None else "idle"
    values = {"episode": episode.name if episode is not None else ""}
    for topic, counters in (episode.counters if episode is not None else {}).items():
        for key in ("received", "written", "dropped", "lost"):
            values[f"{topic} {key}"] = str(getattr(counters, key))
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(status=[status])


def idle_diagnostics(node: str, reason: str) -> DiagnosticArray:
    """Return the diagnostics of a recorder that is not active, without a stamp.

    Args:
        node: Name of the node.
        reason: Why it is not active.
    """
    failed = "failed" in reason or "refused" in reason
    level = DiagnosticStatus.ERROR if failed else DiagnosticStatus.OK
    status = DiagnosticStatus(
        name=f"{node}: recording", hardware_id="", level=level, message=reason
    )
    return DiagnosticArray(status=[status])
