"""Crafted attacks: files that ask for far more than they are, or that try to run something."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from support import fuzz_material as material

Bomb = Callable[[Path, Path], None]

#: A file that nothing may create; the fuzzer looks for it at the end.
CANARY = Path(os.environ.get("LEWM_FUZZ_CANARY", "/tmp/lewm-fuzz-canary"))


class Trap:
    """What creates the canary when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def _text(name: str, text: str) -> Bomb:
    def write(_: Path, folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def in_file(name: str) -> dict[str, Bomb]:
    """Return YAML bombs that write themselves into a file of this name."""
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    merged = "a0: &a0 {k: v}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
    )
    texts = {
        "aliases of aliases": laughs,
        "merge keys of merge keys": merged,
        "an alias in its own anchor": "name: &a [*a]\n",
        "aliases 5000 deep": "a0: &a0 [x]\n"
        + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 5000)),
        "python object": f"name: !!python/object/apply:os.system ['touch {CANARY}']\n",
        "python name": "name: !!python/name:os.system\n",
        "brackets 100000 deep": "name: " + "[" * 100_000,
        "a million lists": "name: [" + "[]," * 1_000_000 + "]",
        "five megabytes": "name: " + "x" * 5_000_000,
        "a number of 10000 digits": "name: " + "9" * 10_000,
        "no date": "name: 2001-99-99\n",
        "wrong tags": "name: !!bool x\ncontrol_rate: !!int y\n",
    }
    made = {key: _text(name, text) for key, text in texts.items()}
    made["not UTF-8"] = lambda _, folder: (folder / name).write_bytes(b"name: \xff\xfe") and None
    made["a device"] = lambda _, folder: (folder / name).symlink_to("/dev/zero")
    return made


def in_json(name: str) -> dict[str, Bomb]:
    """Return JSON bombs that write themselves into a file of this name."""
    return {
        "brackets 100000 deep": _text(name, '{"scene": ' + "[" * 100_000),
        "twenty megabytes": _text(name, '{"scene": "' + "x" * 20_000_000 + '"}'),
        "four million lists": _text(name, '{"scene": [' + "[]," * 4_000_000 + "[]]}"),
        "NaN": _text(name, '{"scene": NaN, "runs": [{"seed": 1e999}]}'),
    }


# Checkpoints.


def _settings(change: Callable[[dict[str, Any]], object]) -> Bomb:
    def write(whole: Path, folder: Path) -> None:
        shutil.copytree(whole / "checkpoint", folder / "checkpoint")
        file = folder / "checkpoint" / "model.json"
        settings = json.loads(file.read_text())
        change(settings)
        file.write_text(json.dumps(settings))

    return write


def _weights(data: bytes | Callable[[bytes], bytes]) -> Bomb:
    def write(whole: Path, folder: Path) -> None:
        shutil.copytree(whole / "checkpoint", folder / "checkpoint")
        file = folder / "checkpoint" / "model.safetensors"
        file.write_bytes(data if isinstance(data, bytes) else data(file.read_bytes()))

    return write


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Change the header of a safetensors file."""

    def changed(data: bytes) -> bytes:
        (size,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + size :]

    return changed


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return header[sorted(key for key in header if key != "__metadata__")[0]]


_TERA = {
    "kind": "transformer", "width": 16384, "depth": 128, "heads": 256, "head_dim": 64,
    "mlp_dim": 16384,
}  # fmt: skip

CHECKPOINTS: dict[str, Bomb] = {
    "10^11 parameters": _settings(lambda s: s["model"].update(predictor=_TERA)),
    "10^12 parameters": _settings(
        lambda s: s["model"].update(predictor={**_TERA, "head_dim": 16384})
    ),
    "four million patches": _settings(
        lambda s: s["model"].update(
            encoder={"kind": "vit", "image_size": 2048, "patch_size": 1, "width": 3}
        )
    ),
    "maps of 17 gigabytes": _settings(
        lambda s: s["model"]["encoder"].update(image_size=2048, channels=[16384, 16384])
    ),
    "a picture of 2048 px": _settings(lambda s: s["model"]["encoder"].update(image_size=2048)),
    "a tolerance that is no number": _settings(
        lambda s: s["latent"].update(goal_tolerance_factor="abc")
    ),
    "episodes that are no list": _settings(lambda s: s["training"].update(trained_episodes=7)),
    "a contract of wrong shape": _settings(lambda s: s.update(contract={"cameras": [[]]})),
    "a number beyond floats": _settings(
        lambda s: s["normalisation"].update(action_mean=[10**400, 0])
    ),
    "a header of 2^63 bytes": _weights(b"\xff" * 7 + b"\x7f" + b"{}"),
    "a header beyond the file": _weights(struct.pack("<Q", 10**8) + b"{}"),
    "a header of nothing": _weights(b"\0" * 8),
    "tensors that overlap": _weights(
        _header(lambda header: _first(header).update(data_offsets=[0, 2**40]))
    ),
    "a shape beyond the data": _weights(
        _header(lambda header: _first(header).update(shape=[2**40, 2**40]))
    ),
    "a negative shape": _weights(_header(lambda header: _first(header).update(shape=[-1]))),
    "an unknown type": _weights(_header(lambda header: _first(header).update(dtype="object"))),
    "a pickle for weights": _weights(pickle.dumps(Trap())),
    **{
        f"model.json: {key}": (
            lambda whole, folder, bomb=bomb: (
                shutil.copytree(whole / "checkpoint", folder / "checkpoint"),
                bomb(whole, folder / "checkpoint"),
            )
            and None
        )
        for key, bomb in in_json("model.json").items()
    },
}

# Pictures.


def _png(width: int, height: int, rows: bytes = b"", chunks: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks
        + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    )  # fmt: skip


def _jpeg(width: int, height: int, twice: tuple[int, int] | None = None) -> bytes:
    data = material.picture_files()["jpeg"]
    place = data.index(b"\xff\xc0")
    frame = data[place : place + 2 + struct.unpack_from(">H", data, place + 2)[0]]

    def sized(frame: bytes, width: int, height: int) -> bytes:
        return frame[:5] + struct.pack(">HH", height, width) + frame[9:]

    frames = sized(frame, width, height)
    if twice is not None:
        frames += sized(frame, *twice)
    return data[:place] + frames + data[place + len(frame) :]


def _compressed(data: bytes) -> Bomb:
    return lambda _, folder: (folder / "compressed").write_bytes(data) and None


@functools.lru_cache(maxsize=1)
def picture_bombs() -> dict[str, bytes]:
    """Return pictures that claim or unpack to more than they are, by name."""
    two_headers = struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2,
                                                               0, 0, 0)  # fmt: skip
    two_headers += struct.pack(">I", zlib.crc32(two_headers[4:]))
    return {
        "PNG of 100000 x 100000 px": _png(100_000, 100_000),
        "PNG of 2^31 px and nothing": _png(2**31 - 1, 1),
        "PNG of 8000 x 7000 px, packed": _png(8000, 7000, bytes(7000 * (8000 * 3 + 1))),
        "PNG with two headers": _png(material.WIDTH, material.HEIGHT, b"", two_headers),
        "PNG of no size": _png(0, 0),
        "JPEG of 65535 x 65535 px": _jpeg(65535, 65535),
        "JPEG of 7000 x 7000 px and few bytes": _jpeg(7000, 7000),
        "JPEG with two frames": _jpeg(material.WIDTH, material.HEIGHT, (60_000, 60_000)),
        "JPEG of markers": b"\xff\xd8" + b"\xff" * 1_000_000,
        "WebP of 16383 x 16383 px": b"RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2,
        "GIF": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0" * 100,
        "TIFF": b"II*\0\x08\0\0\0" + b"\xff" * 100,
        "nothing": b"",
    }


PICTURES: dict[str, Bomb] = {key: _compressed(data) for key, data in picture_bombs().items()}

# What a run leaves behind.


def _cache(change: Callable[[Path], object]) -> Bomb:
    def write(whole: Path, folder: Path) -> None:
        shutil.copytree(whole / "cache", folder / "cache")
        change(folder / "cache")

    return write


def _pack_ticks(cache: Path) -> None:
    with zipfile.ZipFile(cache / "ticks.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("frame_index.npy", "w") as member:
            np.save(member, np.zeros(2**28, np.uint8))


def _pickled_frames(cache: Path) -> None:
    np.save(cache / "frames.npy", np.array([Trap()], dtype=object), allow_pickle=True)


def _far_frames(cache: Path) -> None:
    with np.load(cache / "ticks.npz") as ticks:
        arrays = {name: ticks[name] for name in ticks.files}
    arrays["frame_index"][:] = 2**30
    np.savez(cache / "ticks.npz", **arrays)


CACHES: dict[str, Bomb] = {
    "ticks that are packed": _cache(_pack_ticks),
    "frames that are a pickle": _cache(_pickled_frames),
    "ticks that lead out of the frames": _cache(_far_frames),
}
STATES: dict[str, Bomb] = {
    "a pickle": lambda _, folder: (
        (folder / "state.safetensors").write_bytes(pickle.dumps(Trap())) and None
    ),
    "a header of 2^63 bytes": lambda _, folder: (
        (folder / "state.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}") and None
    ),
}

