"""Whether a checkpoint can plan: diagnostics on held-out episodes, and a verdict."""

from lewm_core.evaluation.check.run import CheckResult, CheckSettings, format_result, run_check

__all__ = ["CheckResult", "CheckSettings", "format_result", "run_check"]
