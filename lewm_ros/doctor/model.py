"""Contract and checkpoint: do they load, agree, and can the checkpoint plan?"""

from __future__ import annotations

from dataclasses import dataclass, field

import lewm_core
from lewm_core.data.contract import Contract, load_contract
from lewm_core.data.contract_comparison import contract_differences
from lewm_core.data.observation import ObservationLayout
from lewm_core.errors import ContractError, UserError
from lewm_core.model.verdict import read_verdict
from lewm_core.model.world_model import WorldModel
from lewm_ros.command_messages import CommandWriter, message_class
from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.positions import MeasuredPositions

#: Looked at where neither a contract nor a checkpoint is given.
DEFAULT_CONTRACT = "push_t"


@dataclass
class Subject:
    """What the checks are about.

    Attributes:
        contract: None if none can be loaded: then only the machine is looked at.
        model: None if no checkpoint is given, or it cannot be loaded.
        findings: What loading them found.
    """

    contract: Contract | None = None
    model: WorldModel | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def layout(self) -> ObservationLayout | None:
        """What the model is given; None where there is no model."""
        if self.contract is None or self.model is None:
            return None
        return ObservationLayout.of(self.contract, self.model.config)

    @property
    def least_rate(self) -> float:
        """Pictures per second below which the planner cannot work, Hz: one per block."""
        skip = 1 if self.model is None else self.model.frame_skip
        return self.contract.control_rate / skip


def open_subject(contract_name: str, checkpoint: str) -> Subject:
    """Load contract and checkpoint; whatever is wrong is a finding.

    Args:
        contract_name: File or name; empty: the checkpoint's, or `DEFAULT_CONTRACT`.
        checkpoint: Folder or name of a shipped one; empty: none.
    """
    subject = Subject()
    own = None
    if checkpoint:
        try:
            subject.model = lewm_core.load(checkpoint)
            own = _own_contract(subject.model, checkpoint)
            subject.findings += [
                ok("checkpoint", f"{checkpoint} loads, image {subject.model.config.image_size} px, "
                   f"frame skip {subject.model.frame_skip}"),
                *_judge_verdict(checkpoint),
            ]  # fmt: skip
        except UserError as error:
            subject.model = None
            subject.findings.append(fail("checkpoint", str(error), "give another checkpoint"))
    else:
        subject.findings.append(ok("checkpoint", "none given: only topics and machine are checked"))
    try:
        subject.contract = own
        if contract_name or own is None:
            subject.contract = load_contract(contract_name or DEFAULT_CONTRACT)
            subject.findings += _judge_contract(subject.contract, contract_name)
            if own is not None:
                subject.findings += _judge_agreement(own, subject.contract, contract_name)
        if subject.layout is not None:
            _check_types(subject.contract)
        # As the planner does when it is configured.
        MeasuredPositions(subject.contract, subject.contract.camera.timeout)
    except UserError as error:
        subject.findings.append(fail("contract", str(error), "mend it, or give another"))
        subject.model = None
    return subject


def _own_contract(model: WorldModel, checkpoint: str) -> Contract:
    if model.contract is None:
        raise UserError(f"{checkpoint} has no contract: train it on a dataset that has one")
    return Contract.from_dict(model.contract, f"contract in {checkpoint}")


def _check_types(contract: Contract) -> None:
    """Raise a UserError if the type of a camera or of the commands is not installed."""
    for camera in contract.cameras:
        message_class(camera.message)
    CommandWriter(contract)


def _judge_contract(contract: Contract, name: str) -> list[Finding]:
    _check_types(contract)
    default = "" if name else " (neither contract nor checkpoint is given)"
    return [
        ok(
            "contract", f"{contract.name!r}{default}: {contract.control_rate:g} Hz, "
            f"{', '.join(contract.topics())}",
        )
    ]


def _judge_agreement(own: Contract, given: Contract, name: str) -> list[Finding]:
    try:
        own = own.measured_as(given)
    except ContractError as error:
        return [fail("contract: agreement", str(error), "mend the contract's measured fields")]
    differences = contract_differences(own, given)
    if not differences:
        return [ok("contract: agreement", "the checkpoint was trained under this contract")]
    return [
        fail(
            "contract: agreement", "checkpoint and contract differ (checkpoint != "
            f"{name}): {'; '.join(differences)}",
            "use the checkpoint's contract, or train on this one",
        )
    ]


def _judge_verdict(checkpoint: str) -> list[Finding]:
    name, verdict = "checkpoint: lewm-check", read_verdict(checkpoint)
    if verdict is None:
        return [
            warning(
                name, "nobody has checked whether these weights can plan",
                f"run lewm-check {checkpoint} --data BAGS",
            )
        ]
    if verdict.verdict == "can plan":
        return [ok(name, "can plan")]
    level = fail if verdict.verdict == "cannot plan" else warning
    mend = "see docs/checking.md"
    return [level(name, f"{verdict.verdict}: {verdict.reason}", mend)]
