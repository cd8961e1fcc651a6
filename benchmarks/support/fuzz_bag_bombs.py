"""Crafted bags: chunks, metadata, databases and message definitions that ask for too much."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import lz4.frame
import numpy as np
import yaml
from rosbags.interfaces import MessageDefinitionFormat
from support import fuzz_material as material
from support.fuzz_bombs import CANARY, in_file

from lewm_core.data.bag_writer import BagWriter
from lewm_core.data.messages import make_message, typestore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Bomb = Callable[[Path, Path], None]

_MAGIC = b"\x89MCAP0\r\n"
_GIB = 2**30


# MCAP by hand: records of one byte for the kind, eight for the length.


def _record(kind: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BQ", kind, len(content) if length is None else length) + content


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<I", len(data)) + data


def _chunk(packed: bytes, claimed: int, compression: str) -> bytes:
    head = struct.pack("<QQQI", 1, 2, claimed, 0) + _string(compression)
    return _record(0x06, head + struct.pack("<Q", len(packed)) + packed)


def _topic(definition: str, encoding: str = "ros2msg", type_name: str = "bomb/msg/Bomb") -> bytes:
    schema = struct.pack("<H", 1) + _string(type_name) + _string(encoding) + _string(definition)
    channel = struct.pack("<HH", 1, 1) + _string("/bomb") + _string("cdr") + struct.pack("<I", 0)
    return _record(0x03, schema) + _record(0x04, channel)


def _message(stamp: int = 1, data: bytes = b"\0\1\0\0" + b"\0" * 64) -> bytes:
    return _record(0x05, struct.pack("<HIQQ", 1, 0, stamp, stamp) + data)


def _mcap(body: bytes, summary: bytes = b"", footer: int | None = None) -> bytes:
    head = _MAGIC + _record(0x01, _string("ros2") + _string("x"))
    data = head + body + _record(0x0F, b"\0" * 4)
    start = (len(data) if summary else 0) if footer is None else footer
    return data + summary + _record(0x02, struct.pack("<QQI", start, 0, 0)) + _MAGIC


def _file(data: bytes | Callable[[], bytes], name: str = "bag.mcap") -> Bomb:
    def write(_: Path, folder: Path) -> None:
        (folder / "bag").mkdir()
        (folder / "bag" / name).write_bytes(data if isinstance(data, bytes) else data())

    return write


def _zeros(size: int) -> bytes:
    packer = zstd.ZstdCompressor()
    piece = bytes(2**24)
    return b"".join(packer.compress(piece) for _ in range(size // len(piece))) + packer.flush()


def _shared_chunks() -> bytes:
    """Let a thousand entries of the index lead to one chunk of 64 MiB."""
    packed = _zeros(2**26)
    topic = _topic("uint8 x")
    chunk = _chunk(packed, 2**26, "zstd")
    start = len(_mcap(b"")) - len(_MAGIC) - 29 - 13 + len(topic)
    entry = struct.pack("<QQQQ", 1, 2, start, len(chunk)) + struct.pack("<I", 10)
    entry += struct.pack("<HQ", 1, start + len(chunk)) + struct.pack("<Q", 31) + _string("zstd")
    entry += struct.pack("<QQ", len(packed), 2**26)
    statistics = struct.pack("<QHIIIIQQ", 10, 1, 1, 0, 0, 1000, 1, 2) + struct.pack("<I", 0)
    summary = topic + _record(0x08, entry) * 1000 + _record(0x0B, statistics)
    return _mcap(topic + chunk, summary)


# Definitions of messages, of which rosbags makes code.

_EVIL = f'__import__("os").system("touch {CANARY}")'
_LINE = "=" * 80
_DEFINITIONS = {
    "an array of four billion texts": ("string[4000000000] x", "ros2msg"),
    "an array of a billion messages": (
        f"a/B[1000000000] x\n{_LINE}\nMSG: a/B\nuint8 x", "ros2msg",
    ),
    "arrays of arrays of nothing": (
        f"a/B[1000] x\n{_LINE}\nMSG: a/B\na/C[1000] x\n{_LINE}\nMSG: a/C\na/D[1000] x\n"
        f"{_LINE}\nMSG: a/D\nuint8[0] x", "ros2msg",
    ),
    "a type inside itself": ("bomb/Bomb x", "ros2msg"),
    "a list of a type inside itself": ("bomb/Bomb[] x", "ros2msg"),
    "fifty thousand fields": ("\n".join(f"uint8 x{n}" for n in range(50_000)), "ros2msg"),
    "a constant of infinity": ("float64 X=1e999\nuint8 x", "ros2msg"),
    "a number of ten thousand digits": ("int64 X=" + "9" * 10_000 + "\nuint8 x", "ros2msg"),
    "code in a default": (f"string x {_EVIL}", "ros2msg"),
    "code in a constant": (f"string X='{_EVIL}'\nstring Y=\"\"\"{_EVIL}\"\"\"\nuint8 x", "ros2msg"),
    "code in a field's name": (f"uint8 x={_EVIL}", "ros2msg"),
    "code in a type's name": (f'a/B"); {_EVIL}; (" x', "ros2msg"),
    "code in the name of an inner type": (
        f"uint8 x\n{_LINE}\nMSG: a/B\"; {_EVIL}\nuint8 x", "ros2msg",
    ),
    "a shift of IDL": (
        "module bomb { module msg { const long X = 1 << 1000000000000;"
        " struct Bomb { uint8 x; }; }; };", "ros2idl",
    ),
    "products of IDL": (
        "module bomb { module msg { const long A0 = " + "9" * 4000 + ";"
        + "".join(f" const long A{n} = A{n - 1} * A{n - 1};" for n in range(1, 40))
        + " struct Bomb { uint8 x; }; }; };", "ros2idl",
    ),
    "parentheses of IDL": (
        "module bomb { module msg { const long X = " + "(" * 5000 + "1" + ")" * 5000 + ";"
        " struct Bomb { uint8 x; }; }; };", "ros2idl",
    ),
    "an IDL of texts": (
        "module bomb { module msg { struct Bomb { string x[400000000]; }; }; };", "ros2idl",
    ),
    "an unknown encoding": ("x", "protobuf"),
}  # fmt: skip


def _defined(text: str, encoding: str) -> bytes:
    body = _topic(text, encoding) + _message()
    return _mcap(body)


# Whole bags with something changed.


def _changed(kind: str, change: Callable[[Path], object]) -> Bomb:
    def write(whole: Path, folder: Path) -> None:
        shutil.copytree(whole / "bags" / kind, folder / "bag")
        change(folder / "bag")

    return write


def _metadata(change: Callable[[dict[str, Any]], object]) -> Bomb:
    def changed(bag: Path) -> None:
        file = bag / "metadata.yaml"
        content = yaml.safe_load(file.read_text())
        change(content["rosbag2_bagfile_information"])
        file.write_text(yaml.safe_dump(content))

    return _changed("plain", changed)


def _sql(*statements: str) -> Bomb:
    def changed(bag: Path) -> None:
        connection = apsw.Connection(str(next(bag.glob("*.db3"))))
        for statement in statements:
            connection.execute(statement)
        connection.close()
        (bag / "metadata.yaml").unlink()

    return _changed("sqlite", changed)


def _packed_file(bag: Path) -> None:
    """A storage file of some kilobytes that unpacks to 200 MiB, once for the disk's sake."""
    file = bag / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    information = content["rosbag2_bagfile_information"]
    information.update(compression_format="zstd", compression_mode="FILE")
    name = information["relative_file_paths"][0]
    information["relative_file_paths"] = [f"{name}.zstd"]
    file.write_text(yaml.safe_dump(content))
    (bag / f"{name}.zstd").write_bytes(_zeros(200 * 2**20))


def _packed_messages(bag: Path) -> None:
    """Messages of which each unpacks to 300 MiB."""
    shutil.rmtree(bag)
    packed = _zeros(300 * 2**20)
    with BagWriter(bag, compression="none") as writer:
        for topic, type_name in material.contract().topic_types().items():
            writer.add_topic(topic, type_name)
            writer.write_raw(topic, 1, packed)
    file = bag / "metadata.yaml"
    content = yaml.safe_load(file.read_text())
    content["rosbag2_bagfile_information"].update(
        compression_format="zstd", compression_mode="MESSAGE"
    )
    file.write_text(yaml.safe_dump(content))


def _centuries(bag: Path) -> None:
    """Pictures of which the last is stamped 60 years after the others."""
    shutil.rmtree(bag)
    with BagWriter(bag) as writer:
        for topic, type_name in material.contract().topic_types().items():
            writer.add_topic(topic, type_name)
            for number in range(6):
                message = make_message(type_name)
                message.header.stamp.sec = 1 + number // 2 * 10**9
                if type_name.endswith("JointState"):
                    message.position = np.zeros(1)
                writer.write(topic, 1 + number, message)


def _other_image(bag: Path) -> None:
    """Images whose definition in the bag has texts for sizes."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import get_types_from_msg
    from rosbags.typesys.store import Typestore

    shutil.rmtree(bag)
    store = Typestore()
    text = "string height\nstring width\nstring encoding\nuint8 is_bigendian\nstring step\n"
    text += "string data"
    store.register(get_types_from_msg(text, "sensor_msgs/msg/Image"))
    image = store.types["sensor_msgs/msg/Image"]("1", "1", "rgb8", 0, "3", "xyz")
    data = bytes(store.serialize_cdr(image, "sensor_msgs/msg/Image"))
    with Writer(bag, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera", "sensor_msgs/msg/Image", typestore=store)
        assert connection.msgdef.format == MessageDefinitionFormat.MSG
        writer.write(connection, 1, data)
        kind = material.contract().action.message
        connection = writer.add_connection("/command", kind, typestore=typestore())
        writer.write(connection, 1, bytes(typestore().serialize_cdr(make_message(kind), kind)))


_PLAIN_TABLE = "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER"

BAGS: dict[str, Bomb] = {
    "a chunk of 1 GiB, packed": _file(lambda: _mcap(_chunk(_zeros(_GIB), _GIB, "zstd"))),
    "a chunk of 1 GiB that claims 1 kB": _file(lambda: _mcap(_chunk(_zeros(_GIB), 1024, "zstd"))),
    "a chunk of lz4 that claims 1 kB": _file(
        lambda: _mcap(_chunk(lz4.frame.compress(bytes(2**28)), 1024, "lz4"))
    ),
    "a chunk that claims 2^63 bytes": _file(_mcap(_chunk(_zeros(2**24), 2**63, "zstd"))),
    "a chunk of unknown compression": _file(_mcap(_chunk(b"x" * 100, 100, "brotli"))),
    "a record of 2^63 bytes": _file(_mcap(_record(0x05, b"x", 2**63))),
    "a record of 2^40 bytes": _file(_mcap(_record(0x03, b"x", 2**40))),
    "a text of 4 GiB": _file(_mcap(_record(0x06, b"\0" * 28 + b"\xff" * 12))),
    "a summary beyond the file": _file(_mcap(_topic("uint8 x") + _message(), footer=2**62)),
    "a summary inside a record": _file(_mcap(_topic("uint8 x") + _message(), footer=20)),
    "a thousand entries for one chunk": _file(_shared_chunks),
    "a stamp of 2^64 - 1": _file(_mcap(_topic("uint8 x") + _message(2**64 - 1))),
    "nothing but magic": _file(_MAGIC),
    **{key: _file(lambda a=value: _defined(*a)) for key, value in _DEFINITIONS.items()},
    "a type name of code": _file(
        _mcap(_topic("uint8 x", "ros2msg", f'a"); {_EVIL}; ("') + _message())
    ),
    "metadata that names other files": _metadata(
        lambda m: m.update(relative_file_paths=["../../../../etc/passwd", "/etc/passwd"])
    ),
    "metadata of 10^15 pictures": _metadata(
        lambda m: [entry.update(message_count=10**15) for entry in m["topics_with_message_count"]]
    ),
    "metadata of 10^10 pictures": _metadata(
        lambda m: [entry.update(message_count=10**10) for entry in m["topics_with_message_count"]]
    ),
    **{
        f"metadata.yaml: {key}": (
            lambda whole, folder, bomb=bomb: _changed(
                "plain", lambda bag: ((bag / "metadata.yaml").unlink(), bomb(whole, bag))
            )(whole, folder)
        )
        for key, bomb in in_file("metadata.yaml").items()
    },
    "a packed storage file": _changed("plain", _packed_file),
    "packed messages": _changed("plain", _packed_messages),
    "stamps of sixty years": _changed("plain", _centuries),
    "another definition of Image": _changed("plain", _other_image),
    "a column of a gigabyte": _sql(
        "DROP TABLE messages",
        f"{_PLAIN_TABLE}, data BLOB GENERATED ALWAYS AS (zeroblob(900000000)))",
        "INSERT INTO messages(topic_id, timestamp) VALUES (1, 1), (1, 2), (1, 3), (2, 1)",
    ),
    "a view without an end": _sql(
        "DROP TABLE schema",
        "CREATE VIEW schema AS WITH RECURSIVE c(schema_version) AS (SELECT 1 UNION ALL "
        "SELECT schema_version + 1 FROM c) SELECT max(schema_version) AS schema_version FROM c",
    ),
    "stamps and data that are texts": _sql("UPDATE messages SET timestamp = 'x', data = 'abc'"),
    "data that are nothing": _sql(
        "DROP TABLE messages", f"{_PLAIN_TABLE}, data BLOB)",
        "INSERT INTO messages(topic_id, timestamp) VALUES (1, 1), (2, NULL)",
    ),
    "topics that are numbers": _sql("UPDATE topics SET name = 7, type = 8"),
}  # fmt: skip
