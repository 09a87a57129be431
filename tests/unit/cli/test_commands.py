"""Every verb: what it prints where, as text and as JSON, and what it saves."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import validate
from PIL import Image

from parfocal import predict
from parfocal.cli.common import console
from parfocal.cli.evaluate import report_table
from parfocal.errors import ConfigError, DataError
from parfocal.hub import bundled_folder
from parfocal.models.info import preset_info

NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
BOX = {
    "type": "object",
    "properties": {"xyxy": NUMBERS, "score": {"type": ["number", "null"]}},
    "required": ["xyxy", "score"],
    "additionalProperties": False,
}
PROBLEMS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"kind": {"type": "string"}, "detail": {"type": "string"}},
        "required": ["kind", "detail"],
        "additionalProperties": False,
    },
}
RESULT = {
    "type": "object",
    "properties": {
        "phrase": {"type": "string"},
        "boxes": {"type": "array", "items": BOX},
        "problems": PROBLEMS,
    },
    "required": ["phrase", "boxes", "problems"],
    "additionalProperties": False,
}
HEADER = {
    "schema": {"const": "parfocal.answer/1"},
    "image": {
        "type": "object",
        "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
        "required": ["width", "height"],
        "additionalProperties": False,
    },
    "model": {"type": "string"},
}


def document(results: dict, **more: dict) -> dict:
    """The schema of a `--json` document; nothing beyond it is allowed."""
    properties = {**HEADER, "results": {"type": "array", "items": results}, **more}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def words_of(text: str) -> list[list[str]]:
    """The words of every line, so that the width of a table's columns does not matter."""
    return [line.split() for line in text.splitlines()]


LOCATED = document(RESULT)
ANSWERED = document(
    RESULT,
    question={"type": "string"},
    text={"type": "string"},
    spans={"type": "array", "items": {"type": "object", "required": ["type"]}},
    problems=PROBLEMS,
    proposals={"type": "integer"},
    timing={"type": "object", "additionalProperties": {"type": "number"}},
)
REGION = {
    "type": "object",
    "properties": {"region": NUMBERS, "text": {"type": "string"}, "problems": PROBLEMS},
    "required": ["region", "text", "problems"],
    "additionalProperties": False,
}


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; from parfocal.cli import main; assert main(['--help']) == 0; "
        "assert not {'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Start with: parfocal demo" in done.stdout


def test_locate_json(run, loaded, scene) -> None:
    done = run("locate", scene, "the car", "a dog", "--json")
    got = json.loads(done.out)
    validate(got, LOCATED)
    assert (done.code, done.err) == (0, "")
    assert got == {
        "schema": "parfocal.answer/1",
        "image": {"width": 100, "height": 80},
        "results": [
            {
                "phrase": "the car",
                "boxes": [{"xyxy": [10.0, 20.0, 30.0, 40.0], "score": 0.875}],
                "problems": [],
            },
            {"phrase": "a dog", "boxes": [], "problems": []},
        ],
        "model": "table",
    }


def test_locate_text_is_a_table(run, loaded, scene) -> None:
    done = run("locate", scene, "the car", "a dog")
    lines = words_of(done.out)
    assert lines[0] == ["phrase", "x1", "y1", "x2", "y2", "score"]
    assert lines[2] == ["the", "car", "10.0", "20.0", "30.0", "40.0", "0.88"]
    assert lines[3] == ["a", "dog", "not", "there"]


def test_locate_tells_an_unreadable_answer_from_a_refusal(run, loaded, scene) -> None:
    done = run("locate", scene, "unread", "a dog")
    lines = words_of(done.out)
    assert [lines[2], lines[3]] == [["unread", "no", "box", "read"], ["a", "dog", "not", "there"]]
    assert "no_box: 'here'" in done.err


def test_ask_json(run, loaded, scene) -> None:
    done = run("ask", scene, "Where?", "--box", "1,2,3,4", "--box", "5,6,7,8", "--json")
    got = json.loads(done.out)
    validate(got, ANSWERED)
    assert got["question"] == "Where?"
    assert got["text"] == "2 boxes and the car"
    assert [result["phrase"] for result in got["results"]] == ["the car"]


def test_ask_text(run, loaded, scene) -> None:
    done = run("ask", scene, "Where?")
    assert done.code == 0
    assert done.out.splitlines()[0] == "0 boxes and the car"
    assert ["the", "car", "10.0", "20.0", "30.0", "40.0", "0.88"] in words_of(done.out)


def test_problems_of_the_answer_are_warnings_not_errors(run, loaded, scene) -> None:
    done = run("ask", scene, "broken")
    assert (done.code, done.out) == (0, "I see <r99>\n")
    assert done.err == "warning: unknown_region: <r99> of 20\n"
    got = json.loads(run("ask", scene, "broken", "--json").out)
    assert got["problems"] == [{"kind": "unknown_region", "detail": "<r99> of 20"}]


def test_a_phrase_without_boxes_is_only_words(run, loaded, scene) -> None:
    assert run("ask", scene, "unplaced").out == "see a dog!\n"


def test_colours_are_those_of_the_picture(run, loaded, scene, monkeypatch) -> None:
    from parfocal.data.drawing import slot_colour

    red, green, blue = (int(slot_colour(0)[start : start + 2], 16) for start in (1, 3, 5))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    done = run("locate", scene, "a dog", "the car")
    assert f"\x1b[1;38;2;{red};{green};{blue}mthe car" in done.out


def test_words_of_a_model_are_never_markup(run, loaded, scene) -> None:
    done = run("chat", scene, stdin="[bold]loud[/bold] [/nothing]\n")
    assert done.out == "1: [bold]loud[/bold] [/nothing]\n"


def test_describe(run, loaded, scene) -> None:
    done = run("describe", scene)
    assert done.out.splitlines()[0] == "I see the car."
    validate(json.loads(run("describe", scene, "--json").out), ANSWERED)


def test_describe_boxes_gives_one_text_a_region_in_order(run, loaded, scene) -> None:
    words = ("describe", scene, "--box", "50,50,60,60", "--box", "1,2,3.5,4")
    got = json.loads(run(*words, "--json").out)
    validate(got, document(REGION))
    assert got["results"] == [
        {"region": [50.0, 50.0, 60.0, 60.0], "text": "a thing 0", "problems": []},
        {"region": [1.0, 2.0, 3.5, 4.0], "text": "a thing 1", "problems": []},
    ]
    assert "a thing 1" in run(*words).out


def test_propose(run, loaded, scene) -> None:
    got = json.loads(run("propose", scene, "--json").out)
    validate(got, document(BOX))
    assert [box["score"] for box in got["results"]] == [0.9, 0.1]
    assert len(json.loads(run("propose", scene, "--top", "1", "--json").out)["results"]) == 1
    assert ["2", "5.0", "6.0", "50.0", "60.0", "0.10"] in words_of(run("propose", scene).out)
    page = scene.with_suffix(".html")
    run("propose", scene, "--save", page)
    marks = re.findall(r'pf-num">(\d+)</span>&#8288;<bdi>thing (\d+)<', page.read_text())
    assert set(marks) == {("1", "1"), ("2", "2")}, "one count on terminals and pages"


def test_chat_answers_every_line(run, loaded, scene) -> None:
    done = run("chat", scene, stdin="hello\n\n  again \nlast")
    assert (done.code, done.out) == (0, "1: hello\n2: again\n3: last\n")
    lines = run("chat", scene, "--json", stdin="hello\nagain\n").out.splitlines()
    for line in lines:
        validate(json.loads(line), ANSWERED)
    assert [json.loads(line)["text"] for line in lines] == ["1: hello", "2: again"]
    assert loaded == [("mini", "auto")] * 2


def test_a_chat_outlives_a_question_that_cannot_be_asked(run, loaded, scene) -> None:
    done = run("chat", scene, stdin="hello\nrefused\nagain\n")
    assert (done.code, done.out) == (1, "1: hello\n3: again\n")
    assert done.err.count("error: the table does not take this") == 1


def test_a_question_in_another_encoding_is_refused_alone(run, loaded, scene) -> None:
    words = io.TextIOWrapper(io.BytesIO(b"hello\ncaf\xe9?\nagain\n"), encoding="utf-8")
    done = run("chat", scene, stdin=words)
    assert (done.code, done.out) == (1, "1: hello\n3: again\n")
    assert done.err.count("not whole Unicode text") == 1


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("ask", "IMAGE", "Where?"), id="ask"),
        pytest.param(("locate", "IMAGE", "the car", "a dog"), id="locate"),
        pytest.param(("describe", "IMAGE"), id="describe"),
        pytest.param(("describe", "IMAGE", "--box", "1,2,30,40"), id="describe a box"),
        pytest.param(("propose", "IMAGE"), id="propose"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".html", ".json"])
def test_save_by_suffix(run, loaded, scene, tmp_path, words, suffix) -> None:
    target = tmp_path / f"saved{suffix}"
    done = run(*(scene if word == "IMAGE" else word for word in words), "--save", target)
    assert done.code == 0
    assert done.err == f"wrote {target}\n"
    start = {".png": b"\x89PNG", ".html": b"<!", ".json": b"{"}[suffix]
    assert target.read_bytes().startswith(start)
    if suffix == ".json":
        printed = run(*(scene if word == "IMAGE" else word for word in words), "--json").out
        assert json.loads(target.read_text(encoding="utf-8")) == json.loads(printed)


def test_device_and_model_are_passed_on(run, loaded, scene) -> None:
    assert run("ask", scene, "Where?", "--device", "cpu", "--model", "mini").code == 0
    assert loaded == [("mini", "cpu")]


ASKING = ("ask", "locate", "describe", "propose", "chat", "demo", "eval")


@pytest.mark.parametrize("verb", ASKING)
def test_the_dialect_is_passed_on(
    run, loaded, scene, tiny_scenes, tmp_path, monkeypatch, verb
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise DataError("far enough")

    monkeypatch.setattr("parfocal.eval.run.run_benchmark", stop)
    words: dict[str, tuple] = {
        "ask": (scene, "Where?"),
        "locate": (scene, "the car"),
        "demo": ("--out", tmp_path / "demo"),
        "eval": ("scenes", "--out", tmp_path / "eval"),
    }
    run(verb, *words.get(verb, (scene,)), "--dialect", "rex_omni")
    assert loaded == [("mini", "auto", "rex_omni")]


def test_objects_are_boxes_and_files_in_their_order(run, loaded, scene, tmp_path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "a,b.png")
    Image.new("RGB", (5, 6)).save(tmp_path / "part.png")
    words = ("ask", scene, "Which?", "--object", "1,2,3.5,4", "--object", tmp_path / "a,b.png")
    done = run(*words, "--object", tmp_path / "part.png")
    assert done.out == "objects [(1.0, 2.0, 3.5, 4.0), (20, 30), (5, 6)]\n"


def test_usage_errors_exit_2(run, scene) -> None:
    flag, number = ("ask", scene, "q", "--nonsense"), ("propose", scene, "--top", "x")
    for words in (("ask",), ("nonsense",), flag, number):
        done = run(*words)
        assert (done.code, done.out) == (2, "")
        assert "Usage: parfocal" in done.err


def test_interrupt_exits_130(run, scene, monkeypatch) -> None:
    def interrupted(name: str, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("parfocal.predict.load", interrupted)
    assert run("ask", scene, "Where?").code == 130


def test_debug_shows_the_traceback(run, tmp_path) -> None:
    from parfocal.errors import ImageError

    with pytest.raises(ImageError):
        run("--debug", "ask", tmp_path / "none.png", "Where?")


def test_version_and_info(run) -> None:
    import parfocal

    assert run("--version").out == f"parfocal {parfocal.__version__}\n"
    facts = json.loads(run("info", "--json").out)
    assert facts["versions"]["parfocal"] == parfocal.__version__
    assert set(facts) == {"versions", "devices", "package", "hub"}
    assert facts["hub"]["offline"] == "yes"  # as the test session sets it
    assert "torch" in run("info").out


def test_info_of_a_preset_prints_the_parameters_of_the_paper(run) -> None:
    done = run("info", "groma_7b")
    assert (done.code, done.err) == (0, "")
    lines = words_of(done.out)
    assert next(x for x in lines if x[:1] == ["all"])[:4] == ["all", "7.38", "B", "7,377,311,657"]
    assert "256 image tokens + 200 for 100 region slots + 64 of text = 520" in done.out
    assert any(line[:1] == ["bfloat16"] for line in lines)


def test_info_compares_with_what_the_paper_writes(run, monkeypatch) -> None:
    monkeypatch.setattr("parfocal.models.info.REPORTED", {"tiny": 0.0001})
    assert "the paper writes 0.0001 B parameters (+1.1 %)" in run("info", "tiny").out
    monkeypatch.setattr("parfocal.models.info.REPORTED", {})
    assert "the paper" not in run("info", "tiny").out


def test_info_of_the_bundled_model_is_of_its_weights(run) -> None:
    named, preset = json.loads(run("info", "mini", "--json").out), preset_info("mini")
    folder = json.loads(run("info", bundled_folder("mini"), "--json").out)
    assert named["model"] == "mini"
    assert named["parts"] == folder["parts"]
    assert named["parameters"] > preset.parameters, "the bundled tokenizer has more words"


def test_info_json(run) -> None:
    got = json.loads(run("info", "tiny", "--json").out)
    assert (got["schema"], got["model"]) == ("parfocal.info/1", "tiny")
    assert sum(part["parameters"] for part in got["parts"]) == got["parameters"]
    assert set(got["memory"]) == {"float32", "bfloat16", "int8", "int4"}


def test_convert_prints_the_report_and_passes_its_options_on(run, tmp_path, monkeypatch) -> None:
    import torch

    from parfocal.models.checkpoints.convert import Report

    seen: list[tuple] = []

    def fake(*words) -> Report:
        seen.append(words)
        used = {"a": ("x", "y"), "b": ("z",)}
        return Report("Groma", used, {"c": "a counter", "d": "a counter"}, {"w": "new"}, [], 12)

    monkeypatch.setattr("parfocal.models.checkpoints.official.convert", fake)
    target = tmp_path / "dst"
    words = ("convert", "src", target, "--family", "groma", "--vision", "a", "--vision", "b")
    words = (*words, "--text", "t", "--stage", "pretrain", "--dtype", "bfloat16")
    done = run(*words)
    assert (done.code, done.err) == (0, f"wrote {target}\n")
    assert seen == [("src", target, "groma", ["a", "b"], "t", "pretrain", torch.bfloat16)]
    assert "2 source tensors filled 3 targets" in done.out
    assert "  dropped 2: a counter (such as c)" in done.out
    got = json.loads(run(*words, "--json").out)
    assert (got["source_tensors"], got["used"], got["targets_filled"]) == (4, 2, 3)
    assert got["dropped"] == {"c": "a counter", "d": "a counter"}
    assert got["kept"] == {"w": "new"}
    run("convert", "src", target)
    assert seen[-1] == ("src", target, None, (), None, "auto", None)


def test_the_example_of_convert_runs(run, tmp_path) -> None:
    done = run("convert", "mini", tmp_path / "fresh", "--text", "mini")
    assert (done.code, done.err) == (0, f"wrote {tmp_path / 'fresh'}\n")
    assert "kept initial" in done.out
    assert (tmp_path / "fresh" / "parfocal_processor.json").is_file()


def test_convert_names_all_misfits_in_one_paragraph(run, tmp_path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    fixture = Path(__file__).parents[2] / "fixtures" / "groma" / "fixture_a"
    state = load_file(fixture / "state_dict.safetensors")
    state["img_txt_bridge.0.wieght.x"] = state.pop("img_txt_bridge.0.weight")
    del state["llm.model.norm.weight"]
    state["img_txt_bridge.2.bias"] = torch.zeros(3)
    source = tmp_path / "src"
    source.mkdir()
    save_file(state, source / "model.safetensors")
    config = json.loads((fixture / "config.json").read_text())["official_config"]
    (source / "config.json").write_text(json.dumps(config))
    done = run("convert", source, tmp_path / "dst")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    for name in ("img_txt_bridge.0.wieght.x", "text.model.norm.weight", "projector.layers.2.bias"):
        assert name in done.err
    assert not (tmp_path / "dst").exists()


@pytest.mark.parametrize("words", [("ask", "Where?"), ("locate", "a dog"), ("describe",)])
def test_the_length_of_an_answer_is_passed_on(run, loaded, scene, words) -> None:
    done = run(words[0], scene, *words[1:], "--max-new-tokens", "9", "--json")
    assert "{'max_new_tokens': 9}" in done.out


def test_eval_prints_the_report(run, loaded, tmp_path, monkeypatch) -> None:
    seen: list[tuple] = []
    report = {"benchmark": "scenes", "protocol": {"model": "table"}}
    report |= {"rec_acc_50": 97.5, "rec_acc_50_n": 40, "rec_acc_50_low": 90, "rec_acc_50_high": 100}
    report |= {"name_exact": None, "name_exact_n": 0}
    report |= {"name_exact_low": None, "name_exact_high": None}

    def fake(name, predictor, out, limit, batch_size, on_progress, *, data):
        seen.append((name, predictor.name, out, limit, batch_size, data))
        on_progress(1, 1)
        return report

    monkeypatch.setattr("parfocal.eval.run.run_benchmark", fake)
    words = ("eval", "scenes", "--limit", "3", "--batch-size", "4", "--out", tmp_path)
    done = run(*words)
    assert (done.code, seen) == (0, [("scenes", "table", tmp_path, 3, 4, None)])
    lines = words_of(done.out)
    assert ["rec_acc_50", "97.50", "90.0", "to", "100.0", "40"] in lines
    assert ["name_exact", "-", "0"] in lines
    assert json.loads(run(*words, "--json").out) == report


def test_data_check_lists_issues_and_exits_1(run, tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n{]\n')
    done = run("data", "check", path)
    assert done.code == 1
    assert f"{path}:1: " in done.out and f"{path}:2: " in done.out
    assert "2 rows, 2 with something wrong" in done.out
    assert json.loads(run("data", "check", path, "--json").out)["bad_rows"] == 2
    path.write_text("")
    assert run("data", "check", path).code in (0, 1)


def test_words_are_printed_as_they_are(run, tmp_path) -> None:
    path = tmp_path / "[old].jsonl"
    path.write_text("\n" * 99 + "{]\n")
    assert f"{path}:100: " in run("data", "check", path).out


def test_a_name_in_brackets_is_printed_as_a_heading(capsys) -> None:
    report = {"benchmark": "scenes", "protocol": {"model": "out/[old]"}}
    console().print(report_table(report))
    assert "scenes: out/[old]" in capsys.readouterr().out


def test_stdout_holds_results_only(run, loaded, scene, tmp_path) -> None:
    done = run("locate", scene, "the car", "--json", "--save", tmp_path / "a.png")
    json.loads(done.out)
    assert Path(tmp_path / "a.png").exists()
    assert "wrote" in done.err


def test_demo_writes_pictures_a_page_and_data(run, loaded, tiny_scenes, tmp_path) -> None:
    out = tmp_path / "deep" / "demo"
    done = run("demo", "--out", out)
    assert done.code == 0
    assert done.err == f"wrote {out / 'index.html'}\n"
    steps = ["1_describe", "2_locate", "3_locate", "4_locate", "5_ask", "6_name", "7_propose"]
    names = [*(f"scene_{step}.png" for step in steps), "scene.png", "index.html", "samples.jsonl"]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for words in ("the dog", "How many cars are there?", "not there", "I see the car."):
        assert words in done.out
    assert run("data", "check", out / "samples.jsonl").code == 0
    got = json.loads(run("demo", "--out", out, "--json").out)
    assert [step["kind"] for step in got["steps"]] == [step[2:] for step in steps]
    assert all(Path(step["file"]).is_file() for step in got["steps"])


def test_demo_leaves_out_what_a_model_cannot_do(
    run, loaded, tiny_scenes, tmp_path, monkeypatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConfigError("table cannot propose")

    monkeypatch.setattr(type(predict.load("mini")), "propose", refuse)
    done = run("demo", "--out", tmp_path, "--json")
    kinds = [step["kind"] for step in json.loads(done.out)["steps"]]
    assert kinds == ["describe", "locate", "locate", "locate", "ask", "name"]
    assert "things worth asking about: left out" in done.err
    assert "table cannot propose" in done.err
    assert (tmp_path / "index.html").is_file()
