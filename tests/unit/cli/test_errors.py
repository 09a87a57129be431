"""Broken input: exit 1, one paragraph that says what to do, nothing on stdout, no traceback."""

from __future__ import annotations

import io
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from parfocal.cli import main


def png_chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def bomb() -> bytes:
    """A PNG of a few hundred bytes that claims 60000 x 60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + png_chunk(b"IEND", b"")
    )


def jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = Image.effect_noise((200, 150), 60)
    noise.save(buffer, "JPEG")
    return buffer.getvalue()


FILES: dict[str, bytes] = {
    "text.png": b"this is no picture\n",
    "empty.png": b"",
    "cut.jpg": jpeg()[:2000],
    "bomb.png": bomb(),
    "head.png": b"\x89PNG\r\n\x1a\n",
    "page.html": b"<html></html>",
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "clip.gif": b"GIF89a",
    "clip.mp4": b"\0\0\0\x18ftypisom",
    "bad_json.jsonl": b'{"id": "a"\n',
    "bad_row.jsonl": b'{"id": "a"}\n',
    "latin.jsonl": b'{"id": "\xe9"}\n',
    "array.jsonl": b"[1, 2]\n",
    "rows.txt": b"hello\n",
    "good.jsonl": b'{"id": "a", "images": [], "turns": []}\n',
}
ASK = ("ask", "scene.png", "Where?")
BOX = (*ASK, "--box")
OBJECT = (*ASK, "--object")
FINDER = ("--tagger", "coco80", "--detector", "nothing")
EVAL = ("eval", "scenes", "--out", "out")

# What is broken: the words of the command line, and what the message must say.
BROKEN: dict[str, tuple[tuple[str, ...], str]] = {
    "missing file": (("ask", "gone.png", "q"), r"gone\.png"),
    "a folder": (("ask", ".", "q"), r"folder|directory"),
    "a text file": (("ask", "text.png", "q"), r"text\.png"),
    "a 0-byte file": (("ask", "empty.png", "q"), r"empty\.png.*empty|0 bytes"),
    "a truncated JPEG": (("ask", "cut.jpg", "q"), r"cut\.jpg"),
    "a bomb": (("ask", "bomb.png", "q"), r"bomb"),
    "only a PNG signature": (("ask", "head.png", "q"), r"head\.png"),
    "a web page": (("describe", "page.html"), r"page\.html"),
    "an SVG": (("locate", "drawing.svg", "car"), r"drawing\.svg"),
    "half a GIF": (("propose", "clip.gif"), r"clip\.gif"),
    "a video where a picture is due": (("locate", "clip.mp4", "car"), r"looks like a video"),
    "a box in a video": (("ask", "clip.mp4", "q", "--box", "1,2,3,4"), r"--box is for pictures"),
    "a URL": (("ask", "https://example.org/a.png", "q"), r"example\.org"),
    "an empty question": (("ask", "scene.png", " "), r"question is empty"),
    "an empty phrase": (("locate", "scene.png", "car", ""), r"phrase is empty"),
    "box with x2 < x1": ((*BOX, "50,10,20,40"), r"wrong way round.*left, top, right, bottom"),
    "box with y2 < y1": ((*BOX, "10,40,20,10"), r"wrong way round"),
    "box without area": ((*BOX, "10,10,10,40"), r"no area"),
    "box with NaN": ((*BOX, "nan,10,20,40"), r"not finite"),
    "infinite box": ((*BOX, "0,0,inf,40"), r"not finite"),
    "box with three numbers": ((*BOX, "1,2,3"), r"has 3 numbers, must have four"),
    "box with five numbers": ((*BOX, "1,2,3,4,5"), r"has 5 numbers"),
    "box of words": ((*BOX, "left,2,3,4"), r"not a number"),
    "empty box": ((*BOX, ""), r"not a number"),
    "box right of the picture": ((*BOX, "90,10,101,40"), r"outside the picture.*100x80"),
    "box above the picture": ((*BOX, "10,-1,20,40"), r"outside the picture.*100x80"),
    "second box outside": ((*BOX, "1,2,3,4", "--box", "1,2,3,81"), r"'1,2,3,81' reaches outside"),
    "an object that is no file": ((*OBJECT, "gone.png"), r"gone\.png"),
    "an object that is no picture": ((*OBJECT, "text.png"), r"text\.png"),
    "an object with three numbers": ((*OBJECT, "1,2,3"), r"--object '1,2,3' has 3 numbers"),
    "an object of words": ((*OBJECT, "left,2,3,4"), r"--object .*not a number"),
    "an object outside": ((*OBJECT, "1,2,3,81"), r"--object '1,2,3,81' reaches outside"),
    "second object outside": ((*OBJECT, "1,2,3,4", "--object", "0,0,101,9"), r"'0,0,101,9' reach"),
    "a detector alone": ((*ASK, "--detector", "owlv2"), r"--detector needs --tagger.*coco80"),
    "a tagger alone": ((*ASK, "--tagger", "coco80"), r"--tagger needs --detector"),
    "a cache of nothing": ((*ASK, "--boxes-cache", "out"), r"--boxes-cache.*there is none"),
    "boxes and a detector": ((*ASK, *FINDER, "--box", "1,2,3,4"), r"--box and --detector"),
    "a box of describe and a detector": (
        ("describe", "scene.png", *FINDER, "--box", "1,2,3,4"),
        r"--box and --detector",
    ),
    "a detector for mini": ((*ASK, *FINDER), r"mini does not read the boxes.*--detector"),
    "locate with a detector for mini": (("locate", "scene.png", "car", *FINDER), r"mini does not"),
    "chat with a detector for mini": (("chat", "scene.png", *FINDER), r"mini does not read"),
    "describe with a bad box": (("describe", "scene.png", "--box", "1;2;3;4"), r"not a number"),
    "unknown model": ((*ASK, "--model", "nonsense"), r"no model 'nonsense'"),
    "empty name of a model": ((*ASK, "--model", ""), r"no model ''"),
    "unknown kind of --save": ((*ASK, "--save", "a.bmp"), r"'\.bmp'.*\.png, \.html, \.json"),
    "--save without an ending": ((*ASK, "--save", "answer"), r"\.png, \.html, \.json"),
    "--save into no folder": ((*ASK, "--save", "no/where/a.png"), r"folder that does not exist"),
    "--save into the name of a folder": ((*ASK, "--save", "album.png"), r"is a folder"),
    "stats --save into no folder": (
        ("data", "stats", "good.jsonl", "--save", "no/s.png"),
        r"folder that does not exist",
    ),
    "--save over the picture": ((*ASK, "--save", "./scene.png"), r"'scene\.png' is a picture"),
    "--save over an object": (
        (*OBJECT, "scene.png", "--save", "scene.png"),
        r"written over\. Give the answer another name",
    ),
    "locate --save over the picture": (
        ("locate", "scene.png", "car", "--save", "scene.png"),
        r"written over",
    ),
    "unknown benchmark": (("eval", "coco", "--out", "out"), r"no benchmark 'coco'.*scenes"),
    "eval without its data": (("eval", "msvd_qa", "--out", "out"), r"needs its data.*--data DIR"),
    "eval with data that is bundled": ((*EVAL, "--data", "."), r"take no data.*--data out"),
    "eval of an empty folder": (
        ("eval", "msvd_qa", "--data", ".", "--out", "out"),
        r"test_q\.json' cannot be read",
    ),
    "eval with a detector alone": ((*EVAL, "--detector", "owlv2"), r"--detector needs --tagger"),
    "eval into a file": (("eval", "scenes", "--out", "text.png/out"), r"cannot be made"),
    "demo into a file": (("demo", "--out", "text.png"), r"cannot be made"),
    "check of a missing file": (("data", "check", "gone.jsonl"), r"gone\.jsonl"),
    "preview of a missing file": (("data", "preview", "gone.jsonl"), r"gone\.jsonl"),
    "preview into no folder": (("data", "preview", "good.jsonl", "--out", "no/p.html"), r"no"),
    "unknown recipe": (("train", "nonsense"), r"no recipe 'nonsense'.*mini"),
    "unknown recipe value": (("train", "mini", "--set", "sede=1", "--print-config"), r"'sede'"),
    "info of nothing": (("info", "nonsense/model"), r"neither a folder.*hf download"),
    "info of a folder without a config": (("info", "."), r"no config\.json.*groma_7b"),
    "convert of nothing": (("convert", "nonsense/model", "dst"), r"neither a folder.*hf download"),
    "convert of another folder": (("convert", ".", "dst"), r"no official folder of groma or mg"),
    "convert of an unknown family": (("convert", ".", "dst", "--family", "x"), r"no family 'x'"),
    "convert of an unknown stage": (("convert", ".", "dst", "--stage", "x"), r"no stage 'x'"),
    "convert to an unknown dtype": (("convert", ".", "dst", "--dtype", "x"), r"'x'.*bfloat16"),
    "convert to what is there": (("convert", "mini", "text.png"), r"text\.png is there already"),
    "convert into a file": (
        ("convert", "mini", "text.png/dst", "--text", "mini"),
        r"text\.png is a file",
    ),
    "convert of a preset alone": (("convert", "mini", "dst"), r"needs a language model.*--text"),
    "--resume of no run": (("train", "mini", "--resume", "--out", "gone"), r"gone holds no run"),
    "--resume of no run, dry": (
        ("train", "mini", "--resume", "--dry-run", "--out", "gone"),
        r"gone holds no run",
    ),
    "--resume of no ablation": (
        ("train", "ablate", "--resume", "--out", "gone"),
        r"gone holds no ablation",
    ),
    "--data that is no folder": (
        ("train", "groma", "--data", "gone", "--dry-run"),
        r"--data 'gone' is no folder",
    ),
    "--data of a recipe without files": (
        ("train", "mini", "--data", ".", "--dry-run"),
        r"'mini' reads no files.*Leave --data out",
    ),
    "--stage of another recipe": (
        ("train", "mini", "--stage", "foo", "--dry-run"),
        r"no stage 'foo'; there are \['perception', 'language', 'wording'\]",
    ),
    "two ends of one command": (
        ("train", "mini", "--print-config", "--dry-run"),
        r"--print-config and --dry-run each stop before training",
    ),
    "--tflops of a run": (("train", "mini", "--tflops", "3"), r"Add --dry-run, or leave --tflops"),
    "--resume of what an ablation would be": (
        ("train", "ablate", "--dry-run", "--resume", "--out", "gone", "--tflops", "3"),
        r"ablate takes no --resume, --tflops: --dry-run",
    ),
    "--resume of an ablation's settings": (
        ("train", "ablate", "--print-config", "--resume", "--out", "gone"),
        r"ablate takes no --resume: ",
    ),
    "--set without a value": (("train", "mini", "--set", "seed", "--print-config"), r"path=value"),
}


@pytest.fixture
def folder(
    tmp_path: Path, scene: Path, tiny_scenes: object, monkeypatch: pytest.MonkeyPatch
) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "album.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_input_is_explained(
    run: Callable, loaded: list, folder: Path, words: tuple[str, ...], message: str
) -> None:
    before = sorted(folder.iterdir())
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1 and done.err.endswith("\n"), "one paragraph"
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err and " at 0x" not in done.err
    assert sorted(folder.iterdir()) == before, "nothing is left behind"


# Bad rows are results as well as errors: what is wrong with each is on stdout or on the page.
BAD_ROWS = ("bad_json.jsonl", "bad_row.jsonl", "latin.jsonl", "array.jsonl", "rows.txt")


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_listed_and_drawn(run: Callable, folder: Path, name: str) -> None:
    done = run("data", "check", name)
    assert done.code == 1
    assert done.out.startswith(f"{name}:1: ")
    assert done.err == f"error: {name} has something wrong in 1 of 1 rows. Repair those listed.\n"
    done = run("data", "preview", name, "--out", "page.html")
    assert (done.code, done.out) == (1, "1 of 1 rows drawn, 1 flagged\n")
    assert re.fullmatch(r"wrote page\.html\nerror: .+1 of 1 rows\. The page shows.+\n", done.err)
    assert (folder / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_there_are_enough_kinds_of_broken_input() -> None:
    assert len(BROKEN) + len(BAD_ROWS) >= 20


def test_a_bad_picture_is_told_before_the_model_is_loaded(run, loaded, folder) -> None:
    for words in (("ask", "gone.png", "q"), (*BOX, "1,2,3"), (*ASK, "--save", "a.bmp")):
        assert run(*words).code == 1
    assert loaded == []


@pytest.mark.parametrize(
    ("words", "close"),
    [
        pytest.param(("chat", "scene.png"), "stdin", id="nothing to read questions from"),
        pytest.param(("info", "--json"), "stdout", id="nowhere to print to"),
        pytest.param(("ask", "gone.png", "q"), "stderr", id="nowhere to complain to"),
    ],
)
def test_closed_streams_end_a_command_quietly(
    capfd, monkeypatch, loaded, folder, words, close
) -> None:
    monkeypatch.setattr(sys, close, None)  # as Python has it after `<&-` or `>&-`
    code = main(words)
    getattr(sys, close).close()
    assert (code, tuple(capfd.readouterr())) == (int(close == "stderr"), ("", ""))


def test_a_full_disk_is_an_error_not_a_traceback(run, loaded, folder, monkeypatch) -> None:
    from parfocal.predict import Answer

    def full(self: Answer, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Answer, "save", full)
    done = run(*ASK, "--save", "a.png")
    assert done.code == 1
    assert done.err == "error: OSError: [Errno 28] No space left on device: 'a.png'\n"
