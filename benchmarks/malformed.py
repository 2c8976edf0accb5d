"""Malformed recordings of every format: real and made files with one thing broken, and bombs.

`malformed(random)` is one of them. `benchmarks/abuse.py` sends thousands of them to a server, tests a few hundred.
"""

import gzip
import io
import random as random_module
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io

from biomechgpt.motion.skeleton import NAMES
from serve import examples

REAL = Path(__file__).parents[1] / "tests" / "data" / "recordings"
SUFFIXES = {
    ".mot", ".sto", ".csv", ".tsv", ".parquet", ".npz", ".npy", ".mat", ".xlsx", ".c3d", ".b3d", ".bvh", ".trc",
    ".mvnx", ".txt", ".zip", ".gz",
}  # fmt: skip
_NUMBERS = ("nan", "inf", "-inf", "1e308", "1e999", "-1e-320", "", "x", "9" * 400, "0x10", "1,5", "--1", "٣")


@cache
def whole_files() -> dict[str, bytes]:
    """{name: content} of files of many formats, most of which are recordings: what is then broken."""
    files = {
        path.name: path.read_bytes()
        for path in sorted(REAL.rglob("*"))
        if path.suffix in SUFFIXES and path.stat().st_size < 1 << 20
    }
    name = next(e["name"] for e in examples.listed() if "walking" in e["name"])
    files[name] = examples.mot(name).encode()
    time_s = np.arange(120) / 60
    columns = {"time": time_s} | {
        joint: 20 * np.sin(2 * np.pi * time_s + i) for i, joint in enumerate(NAMES[:20])
    }
    table = pa.table({key: pa.array(values) for key, values in columns.items()})
    parquet, npz, mat, keypoints = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    np.savez_compressed(
        npz, frequency=60.0, **{f"q_{k}": np.radians(v) for k, v in columns.items() if k != "time"}
    )
    scipy.io.savemat(mat, columns, do_compression=True)
    np.save(keypoints, np.cumsum(np.random.default_rng(1).normal(size=(60, 17, 3)), axis=0))
    lines = [
        ",".join(columns),
        *(",".join(f"{v:.4f}" for v in row) for row in zip(*columns.values(), strict=True)),
    ]
    poses = io.BytesIO()
    np.savez(poses, poses=0.1 * np.sin(np.arange(120 * 66)).reshape(120, 66), mocap_framerate=60.0)
    files |= {
        "table.csv": "\n".join(lines).encode(),
        "table.parquet": parquet.getvalue(),
        "joints.npz": npz.getvalue(),
        "smpl.npz": poses.getvalue(),
        "joints.mat": mat.getvalue(),
        "keypoints.npy": keypoints.getvalue(),
        "walk.bvh": _bvh(),
        "points.trc": _trc(),
        "person.mvnx": _mvnx(),
        "book.xlsx": _workbook(lines),
        "points.c3d": _c3d(),
        "subject.b3d": struct.pack("<Q", 60) + b"\x08\x22" + b"<OpenSimDocument>" + bytes(400),
    }
    files["walk.mot.gz"] = gzip.compress(files[name])
    files["several.zip"] = _zip({"a.mot": files[name], "b/table.csv": files["table.csv"]})
    return files


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _bvh() -> bytes:
    frames = "\n".join(" ".join(["0"] * 6) for _ in range(60))
    return (
        "HIERARCHY\nROOT Hips\n{\nOFFSET 0 0 0\nCHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation "
        f"Yrotation\nEnd Site\n{{\nOFFSET 0 1 0\n}}\n}}\nMOTION\nFrames: 60\nFrame Time: 0.016667\n{frames}\n"
    ).encode()


def _trc() -> bytes:
    markers = ["RASI", "LASI", "RKNE", "LKNE", "RANK", "LANK"]
    rows = ["\t".join([str(i + 1), f"{i / 60:.4f}", *["0.5"] * (3 * len(markers))]) for i in range(60)]
    head = (
        "PathFileType\t4\t(X/Y/Z)\ta.trc\nDataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\n60\t60\t60\t6\tm\n"
        "Frame#\tTime\t" + "\t\t\t".join(markers) + "\n\t\t"
    )
    return (
        head + "\t".join(f"{a}{i + 1}" for i in range(6) for a in "XYZ") + "\n\n" + "\n".join(rows)
    ).encode()


def _mvnx() -> bytes:
    frames = "".join(
        f'<frame time="{16 * i}" type="normal"><jointAngle>{" ".join(["1.0"] * 66)}</jointAngle></frame>'
        for i in range(30)
    )
    return (
        '<?xml version="1.0"?><mvnx><subject frameRate="60"><joints><joint label="jRightKnee"/></joints>'
        f"<frames>{frames}</frames></subject></mvnx>"
    ).encode()


def _workbook(lines: list[str]) -> bytes:
    def cell(text: str) -> str:
        return f'<c t="str"><v>{escape(text)}</v></c>'

    rows = "".join(f"<row>{''.join(map(cell, line.split(',')))}</row>" for line in lines)
    return _zip(
        {
            "[Content_Types].xml": b"<Types/>",
            "xl/workbook.xml": b'<workbook><sheets><sheet name="angles"/></sheets></workbook>',
            "xl/worksheets/sheet1.xml": f"<worksheet><sheetData>{rows}</sheetData></worksheet>".encode(),
        }
    )


def _c3d() -> bytes:
    header = bytearray(512)
    header[0:2] = b"\x02\x50"
    struct.pack_into("<HHHHHf", header, 2, 4, 0, 1, 60, 0, -0.1)
    struct.pack_into("<HHf", header, 16, 3, 0, 60.0)
    parameters = bytearray(512)
    parameters[0:4] = bytes([1, 80, 1, 84])
    return bytes(header + parameters) + struct.pack("<f", 0.5) * (4 * 4 * 60)


# --- Ways to break a file


def _flip(random: random_module.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice((1, 3, 20, 200))):
        if changed:
            changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def _cut(random: random_module.Random, content: bytes) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _repeat(random: random_module.Random, content: bytes) -> bytes:
    begin = random.randrange(len(content) + 1)
    piece = content[begin : begin + random.choice((1, 10, 1000))]
    return content[:begin] + piece * random.choice((2, 50)) + content[begin:]


def _drop(random: random_module.Random, content: bytes) -> bytes:
    begin = random.randrange(len(content) + 1)
    return content[:begin] + content[begin + random.choice((1, 10, 1000)) :]


def _zeros(random: random_module.Random, content: bytes) -> bytes:
    begin = random.randrange(len(content) + 1)
    size = random.choice((1, 8, 500))
    return content[:begin] + random.choice((b"\x00", b"\xff")) * size + content[begin + size :]


def _number(random: random_module.Random, content: bytes) -> bytes:
    """One of the numbers of a text is another."""
    words = content.split(b"\t")
    if len(words) < 3:
        words, separator = content.split(b","), b","
    else:
        separator = b"\t"
    words[random.randrange(len(words))] = random.choice(_NUMBERS).encode()
    return separator.join(words)


def _size(random: random_module.Random, content: bytes) -> bytes:
    """A number of four bytes, perhaps a size, is huge."""
    place = random.randrange(max(1, min(len(content), 600)))
    return (
        content[:place] + struct.pack("<I", random.choice((2**31, 2**32 - 1, 10**8))) + content[place + 4 :]
    )


def _join(random: random_module.Random, content: bytes) -> bytes:
    return content + random.choice(list(whole_files().values()))


def _inside(random: random_module.Random, content: bytes) -> bytes:
    """A member of an archive is broken, the archive is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {info.filename: archive.read(info) for info in archive.infolist()}
    except Exception:
        return _flip(random, content)
    if not files:
        return content
    name = random.choice(list(files))
    files[name] = random.choice((_flip, _cut, _drop, _size, _number))(random, files[name])
    return _zip(files)


_WAYS: tuple[Callable[[random_module.Random, bytes], bytes], ...] = (
    _flip, _cut, _repeat, _drop, _zeros, _number, _size, _join, _inside,
)  # fmt: skip


# --- Bombs: small files that stand for much


@cache
def bombs() -> dict[str, bytes]:
    """{name: content} of small files that unpack to much, promise much, or nest deeply."""
    zeros = np.zeros(250_000_000, np.int8)
    npz, parquet, npy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez_compressed(npz, q_knee_angle_r=zeros)
    del zeros
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **{f"q_{i}": np.zeros(5_000_000, np.int8) for i in range(34)})
    columns = {f"c{i}": pa.array(np.zeros(1_000_000, np.int8)) for i in range(30)}
    pq.write_table(pa.table(columns), parquet, compression="zstd")
    np.lib.format.write_array_header_1_0(
        npy, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 33, 3)}
    )
    packed = gzip.compress(bytes(600 << 20), 1)
    entities = '<!ENTITY e0 "ha">' + "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    rows = "\n".join(f"{100 * i}\t1.0\t2.0" for i in range(100))
    head = "a\nversion=1\nnRows=100\nnColumns=3\ninDegrees=yes\nendheader\ntime\tknee_angle_r\tknee_angle_l\n"
    return {
        "zeros.npz": npz.getvalue(),
        "arrays.npz": arrays.getvalue(),
        "long.parquet": parquet.getvalue(),
        "promise.npy": npy.getvalue() + bytes(64),
        "zeros.mot.gz": packed,
        "gzip.zip": _zip({"walk.mot.gz": packed}),
        "zeros.zip": _zip({f"{i}.mot": bytes(100 << 20) for i in range(4)}),
        "zeros.xlsx": _zip({"[Content_Types].xml": b"<Types/>", "xl/workbook.xml": bytes(300 << 20)}),
        "deep.json": b"[" * 1_000_000,
        "deep.mvnx": b"<?xml version='1.0'?><mvnx>" + b"<a>" * 500_000,
        "laughs.mvnx": f'<?xml version="1.0"?><!DOCTYPE m [{entities}]><mvnx>&e11;</mvnx>'.encode(),
        "time.mot": (head + rows).encode(),
        "promise.mot": head.replace("100", "5000000").replace("=3", "=5000000").encode(),
        "wide.csv": b"time," + b",".join(b"c%d" % i for i in range(200_000)) + b"\n" + b"0," * 200_001,
        "digits.csv": b"time,a,b\n0,1,2\n1," + b"9" * 2_000_000 + b",2\n",
        "braces.bvh": b"HIERARCHY\nROOT a\n" + b"{\nJOINT b\n" * 200_000,
    }


def malformed(random: random_module.Random, bomb_share: float = 0.02) -> tuple[str, bytes]:
    """(name, content) of one malformed recording. bomb_share: share of bombs."""
    if random.random() < bomb_share:
        return random.choice(list(bombs().items()))
    name, content = random.choice(list(whole_files().items()))
    for _ in range(random.choice((1, 1, 2, 4))):
        content = random.choice(_WAYS)(random, content)
    if random.random() < 0.1:
        name = f"file{random.choice(sorted(SUFFIXES))}"
    return name, content[: 4 << 20]
