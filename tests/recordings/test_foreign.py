"""A file that is not read is named for what it is, with the next step."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from biomechgpt.core.settings import InputError
from biomechgpt.recordings import readers
from biomechgpt.recordings.readers import ReaderSettings
from opensim_files import mot, walk


def zipped(*paths):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in paths:
            file.writestr(
                path, "application/vnd.oasis.opendocument.spreadsheet" if path == "mimetype" else "<x/>"
            )
    return buffer.getvalue()


def tarred(mode):
    buffer, content = io.BytesIO(), mot(walk()).encode()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        info = tarfile.TarInfo("S1/walk.mot")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def table(*names, rows=30):
    return "\n".join(
        [",".join(names), *(",".join(str(i + j) for j in range(len(names))) for i in range(rows))]
    )


BINARY = bytes(range(128)) * 2
"""What follows the mark of a binary file."""
PICTURE, VIDEO, SOUND = (
    "found a picture: export the joint angles",
    "found a video: .*OpenCap",
    "found a sound",
)
FILES = {
    "a.gif": (b"GIF89a" + BINARY, PICTURE),
    "a.bmp": (b"BM" + BINARY, PICTURE),
    "a.tif": (b"II*\0" + BINARY, PICTURE),
    "a.png": (b"\x89PNG\r\n\x1a\n" + BINARY, PICTURE),
    "a.jpg": (b"\xff\xd8\xff\xe0" + BINARY, PICTURE),
    "a.webp": (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(99), PICTURE),
    "a.heic": (b"\0\0\0\x18ftypheic" + bytes(99), PICTURE),
    "a.dcm": (bytes(128) + b"DICM" + bytes(99), "a medical image"),
    "a.mov": (b"\0\0\0\x14ftypqt  " + bytes(99), VIDEO),
    "old.mov": (b"\0\0\0\x08wide\0\0\0\0mdat" + bytes(99), VIDEO),
    "a.avi": (b"RIFF\x10\0\0\0AVI LIST" + bytes(99), VIDEO),
    "a.mpg": (b"\0\0\x01\xba" + bytes(99), VIDEO),
    "a.mts": ((b"G\x40\0\x10" + bytes(184)) * 3, VIDEO),
    "a.mkv": (b"\x1aE\xdf\xa3" + bytes(99), VIDEO),
    "a.wav": (b"RIFF\x10\0\0\0WAVEfmt " + bytes(99), SOUND),
    "a.mp3": (b"ID3\x03\0" + BINARY, SOUND),
    "a.docx": (zipped("[Content_Types].xml", "word/document.xml"), "a Word document: save the table"),
    "a.pptx": (zipped("[Content_Types].xml", "ppt/presentation.xml"), "a presentation"),
    "a.ods": (zipped("mimetype", "content.xml"), "a document of LibreOffice: save the table"),
    "a.numbers": (zipped("Index/Document.iwa"), "a document of Numbers"),
    "a.pdf": (b"%PDF-1.7\n" + bytes(99), "a PDF document"),
    "a.rtf": ("{\\rtf1 Hello}", "a document"),
    "a.tar": (tarred("w"), "a tar archive: unpack it"),
    "a.tar.gz": (tarred("w:gz"), "a tar archive: unpack it"),
    "noise.gz": (gzip.compress(b"\x01\x02\x03" * 99), "binary data of no known format"),
    "a.edf": (b"0".ljust(8) + b" " * 160 + b"01.01.2610.00.00" + b" " * 99, "EMG or EEG"),
    "a.bdf": (b"\xffBIOSEMI" + b" " * 99, "EMG or EEG"),
    "a.nc": (b"CDF\x01" + bytes(99), "a NetCDF file"),
    "a.rds": (gzip.compress(b"X\n\0\0\0\x03\0\x04" + bytes(99)), "data of R: .*write.csv"),
    "a.rda": (gzip.compress(b"RDX3\nX\n\0\0" + BINARY), "data of R"),
    "a.sav": (b"$FL2@(#) SPSS DATA FILE" + bytes(99), "SPSS"),
    "a.dta": (b"<stata_dta><header>" + bytes(99), "Stata"),
    "a.feather": (b"ARROW1\0\0" + bytes(99), "Arrow or Feather"),
    "a.exe": (b"MZ\x90\0" + BINARY, "a program"),
    "a.stl": ("solid foot\nfacet normal 0 0 1\n", "the mesh of a body"),
    "a.obj": ("# Blender\no Body\nv 1.0 2.0 3.0\nv 1 2 3\n", "the mesh of a body"),
    "a.blend": (b"BLENDER-v300" + bytes(99), "Blender: .*BVH"),
    "a.asf": ("# AST/ASF file\n:version 1.10\n:name VICON\n", "Acclaim"),
    "a.amc": ("#!OML:ASF\n:FULLY-SPECIFIED\n:DEGREES\n1\nroot 1 2 3 4 5 6\n", "Acclaim"),
    "a.enf": ("[TRIAL_INFO]\nCREATIONDATEANDTIME=2026\nSUBJECTS=P1\n", "a file of settings"),
    "a.vsk": ("<?xml version='1.0'?><KinematicModel/>", "an XML file"),
    "ik.xml": ("<OpenSimDocument><InverseKinematicsTool/></OpenSimDocument>", "an OpenSim model or setup"),
    "session.yaml": ("subjectID: P1\nmass_kg: 70\nheight_m: 1.7\n", "a text of notes or settings"),
    "walk.m": ("% reads a walk\nfunction y = f(x)\n y=x;\nend\n", "a program's text"),
    "coco.json": (json.dumps({"images": [], "annotations": [{"keypoints": [1, 2, 2]}]}), "keypoints of a video"),
    "alphapose.json": (json.dumps([{"image_id": "0.jpg", "keypoints": [1.0] * 51}]), "keypoints of a video"),
    "_subject.json": (json.dumps({"sex": "female", "massKg": 70}), "AddBiomechanics"),
    "observation.json": (json.dumps({"resourceType": "Observation"}), "FHIR"),
    "trials.json": (json.dumps({"trials": []}), "a JSON file of another kind"),
    "notes.ipynb": (json.dumps({"cells": [], "nbformat": 4}), "a Jupyter notebook"),
    "forces.anc": ("File_Type:\tAnalog R/C ASCII\nName\tF1X\nRate\t1000\n0.0\t1\n", "force plates"),
    "a.forces": ("[Force Data]\nNumberOfForcePlates=2\n#Sample\tFX1\tFY1\tFZ1\n1\t1\t2\t3\n", "forces"),
    "plate.csv": (table("abs time (s)", "Fx", "Fy", "Fz"), "found forces"),
    "insole.csv": (table("frame", "cop_x", "cop_y", "force"), "found forces"),
    "emg.csv": (table("time", "EMG_TA", "EMG_GM", "EMG_VL"), "found electromyography"),
    "imu.csv": (table("time", "acc_x", "acc_y", "acc_z", "gyr_x", "gyr_y"), "inertial sensors .*OpenSense"),
    "walkway.csv": (table("Velocity", "Cadence", "Step_Length_L"), "gait parameters"),
    "deeplabcut.csv": (
        "scorer,DLC,DLC,DLC\nbodyparts,knee,knee,knee\ncoords,x,y,likelihood\n0,1,2,0.9\n1,1,2,0.9\n",
        "keypoints in the plane of one camera: .*|likelihood",
    ),
    "annotations.csv": ("path,participant,activity\na.mot,P1,walk\n", "a table of annotations: give the folder"),
    "answers.csv": ("file,participant,duration_s,task,status\na.mot,P1,1.0,diagnosis,answered\n", "answers"),
    "bodies.tsv": ("NO_OF_FRAMES\t9\nNO_OF_BODIES\t1\nBODY_NAMES\tA\n1\t2\t3\n", r"bodies of Qualisys \(TSV, 6D"),
    "skeleton.tsv": (
        "NO_OF_FRAMES\t9\nFREQUENCY\t100\nDATA_INCLUDED\tSKELETON\nSEGMENT_NAMES\tHips\tSpine\n1\t2\t3\n",
        "a skeleton of Qualisys",
    ),
    "bones.csv": (
        "Format Version,1.23,Take Name,w,Export Frame Rate,100.0,Length Units,Meters\n\n,,Bone,Bone,Bone\n"
        ",,Ana:Hip,Ana:Hip,Ana:Hip\n,,1,1,1\n,,Position,Position,Position\nFrame,Time (Seconds),X,Y,Z\n0,0,1,2,3\n",
        "expected markers in this CSV of OptiTrack Motive, found Bone: .*BVH",
    ),
    "spaces.mot": ("  \n\n", "an empty file"),
    "zeros.mot": (bytes(999), "nothing but zeros: copying or downloading it has failed"),
    "noise.mot": (np.random.default_rng(0).bytes(999), "binary data of no known format"),
    "cut.mot": (mot(walk())[:20], "text of no known format, which begins 'Coordinates'"),
    "._walk.mot": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        " + bytes(99), "a hidden file of macOS"),
    "walk.mot.icloud": (b"bplist00" + bytes(99), "the placeholder of a file"),
    "walk.mot.lnk": (b"L\0\0\0\x01\x14\x02\0" + bytes(99), "a shortcut of Windows"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_it_is_named_with_the_next_step(name):
    content, message = FILES[name]
    content = content.encode() if isinstance(content, str) else content
    with pytest.raises(InputError, match=message) as refused:
        readers.parse(name, content, ReaderSettings())
    assert str(refused.value).startswith(name.removesuffix(".gz"))
    assert len(str(refused.value)) < 420


def test_letters_that_begin_a_table_are_no_mark_of_a_binary_file():
    """`BM`, `MZ` and `ID3` begin bitmaps, programs and sounds; they may begin a column's name too."""
    columns = walk()
    for mark in ("BMI", "MZ", "ID3", "RDX"):
        values = np.column_stack([0.0 * columns["time"], *columns.values()])
        rows = [",".join(f"{v:.5f}" for v in row) for row in values]
        text = "\n".join([",".join([mark, *columns]), *rows])
        assert readers.parse("a.csv", text.encode(), ReaderSettings()).joint_mask.any()


def test_lines_above_a_table_do_not_make_it_something_else():
    columns = walk()
    rows = np.column_stack(list(columns.values()))
    body = "\n".join([",".join(columns), *(",".join(f"{v:.5f}" for v in row) for row in rows)])
    for above in (
        "Subject: P1\nDate: today\nRate: 100\n",
        "[Header]\nRate=100\n",
        "% exported\n# by a program\n",
    ):
        recording = readers.parse("a.csv", (above + body).encode(), ReaderSettings())
        assert "above the column names skipped" in recording.import_notes


@pytest.mark.parametrize("content", [b"", mot(walk()).encode()])
def test_a_file_that_cannot_be_opened_is_named(tmp_path, content):
    with pytest.raises(InputError, match="no such recording"):
        readers.read(str(tmp_path / "absent.mot"), ReaderSettings())
    folder = tmp_path / "folder.mot"
    folder.mkdir()
    (folder / "inside").write_bytes(content)
    with pytest.raises(InputError, match=r"folder\.mot: expected a file that can be read, found"):
        readers.read(str(folder), ReaderSettings())
