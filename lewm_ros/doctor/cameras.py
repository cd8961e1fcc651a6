"""Is what a camera sends what the contract says, and a picture of anything?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lewm_core.data.contract_parts import Camera
from lewm_ros.doctor.report import Finding, fail, ok, warning
from lewm_ros.doctor.stamps import Demands, judge_rate, judge_stamps
from lewm_ros.doctor.streams import Picture, Stream

#: Of 255: nothing brighter than this is black; nothing further apart than this is one colour.
_BLACK, _PLAIN = 12, 3
#: So many pictures of the same bytes are no chance.
_FROZEN_PICTURES = 3
#: Pictures that cannot be decoded: above this share they are the rule.
_BROKEN_SHARE = 0.1


def judge_camera(
    camera: Camera, stream: Stream, seconds: float, demands: Demands
) -> list[Finding]:
    """Judge what came from a camera: rate, stamps, size, encoding, content.

    Args:
        camera: The contract's.
        stream: What came.
        seconds: How long it was listened to.
        demands: What it must be like.
    """
    name = f"camera {camera.name}"
    findings = judge_rate(name, camera.topic, stream, seconds, demands)
    pictures = [arrival.picture for arrival in stream.arrivals if arrival.picture is not None]
    if pictures:
        findings += judge_stamps(name, camera.topic, stream, demands)
        findings += _judge_decoding(name, camera, pictures)
        decoded = [picture for picture in pictures if not picture.error]
        if decoded:
            findings += _judge_size(name, camera, decoded)
            findings += _judge_content(name, camera, decoded, demands.simulated)
    return findings


def bytes_per_second(streams: Sequence[Stream], seconds: float) -> float:
    """Return what these streams bring, as they are, in a second of real time."""
    sizes = [
        arrival.picture.size
        for stream in streams
        for arrival in stream.arrivals
        if arrival.picture is not None
    ]
    return sum(sizes) / seconds


def _judge_decoding(name: str, camera: Camera, pictures: Sequence[Picture]) -> list[Finding]:
    broken = [picture for picture in pictures if picture.error]
    encodings = ", ".join(sorted({picture.encoding or "not named" for picture in pictures}))
    check = f"{name}: encoding"
    if not broken:
        return [ok(check, encodings)]
    level = fail if len(broken) > _BROKEN_SHARE * len(pictures) else warning
    return [
        level(
            check, f"{len(broken)} of {len(pictures)} pictures on {camera.topic} ({encodings}) "
            f"cannot be decoded: {broken[0].error}",
            "mend the driver's encoding, or the cable and the link that break pictures",
            broken=len(broken), pictures=len(pictures),
        )
    ]


def _judge_size(name: str, camera: Camera, pictures: Sequence[Picture]) -> list[Finding]:
    check = f"{name}: size"
    width, height = camera.size
    sizes = Counter((picture.width, picture.height) for picture in pictures)
    others = [size for size in sizes if size != (width, height)]
    if not others:
        return [ok(check, f"{width}x{height} px", width_px=width, height_px=height)]
    seen = " and ".join(f"{w}x{h}" for w, h in others)
    return [
        fail(
            check, f"pictures on {camera.topic} are {seen} px, the contract says "
            f"{width}x{height} px",
            f"set the camera to {width}x{height}; a contract with another size needs recordings "
            "and a training of its own",
            width_px=others[0][0], height_px=others[0][1],
        )
    ]


def _judge_content(
    name: str, camera: Camera, pictures: Sequence[Picture], simulated: bool
) -> list[Finding]:
    check = f"{name}: content"
    brightest = max(picture.brightest for picture in pictures)
    spread = max(picture.brightest - picture.darkest for picture in pictures)
    measured = {"brightest": brightest, "spread": spread}
    if brightest <= _BLACK:
        return [
            fail(
                check, f"pictures on {camera.topic} are black (brightest {brightest} of 255)",
                "take the cap off the lens, put light on, set the exposure", **measured,
            )
        ]
    if spread <= _PLAIN:
        return [
            warning(
                check, f"pictures on {camera.topic} are of one colour",
                "look at one: lens, exposure, where it points", **measured,
            )
        ]
    same = len(pictures) >= _FROZEN_PICTURES and len({p.checksum for p in pictures}) == 1
    if same and not simulated:
        return [
            fail(
                check, f"all {len(pictures)} pictures on {camera.topic} have the same bytes: the "
                "camera is frozen, since a real one always has noise",
                "start its driver anew; a simulated scene at rest looks like this too, then set "
                "use_sim_time", **measured,
            )
        ]
    rest = ", all the same (a simulated scene at rest)" if same else ""
    return [ok(check, f"brightness {brightest - spread} to {brightest} of 255{rest}", **measured)]
