"""`parfocal demo` shows what the bundled model does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parfocal.cli import show
from parfocal.cli.common import (
    DeviceOption,
    DialectOption,
    JsonOption,
    ModelOption,
    console,
    load_predictor,
)

if TYPE_CHECKING:
    from parfocal.eval.scenes import Scene, SceneSet
    from parfocal.predict.demo import DemoPicture, Shown, Step

NUM_PICTURES = 3


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")
    ] = Path("out/demo"),
    model: ModelOption = "mini",
    dialect: DialectOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Ask about bundled pictures; prints the answers, and writes pictures and one HTML page.

    Example: parfocal demo --out out/demo
    """
    from parfocal.data.outputs import make_folder
    from parfocal.eval.scenes import load_scenes
    from parfocal.predict import demo as work

    pictures = choose_pictures(load_scenes())
    make_folder(out)
    shown: list[work.Shown] = []
    for one in work.run_demo(load_predictor(model, device, dialect), pictures, out):
        if not as_json:
            tell(one, first=not shown or shown[-1].picture is not one.picture)
        shown.append(one)
    work.write_page(shown, out / "index.html")
    work.write_samples(shown, out / "samples.jsonl")
    if as_json:
        show.print_json({"schema": "parfocal.demo/1", "steps": [step_json(one) for one in shown]})
    show.show_saved(out / "index.html")


def choose_pictures(split: SceneSet) -> list[DemoPicture]:
    """The first scenes in which everything can be shown: unique, twin and absent things."""
    from parfocal.predict.demo import DemoPicture

    rich = [scene for scene in split.scenes if _shows_all(scene)][:NUM_PICTURES]
    scenes = rich or list(split.scenes[:NUM_PICTURES])
    images = split.open(scenes)
    names = ["scene", *(f"scene{number}" for number in range(2, len(scenes) + 1))]
    return [
        DemoPicture(name, images[scene.id], demo_steps(scene))
        for name, scene in zip(names, scenes, strict=True)
    ]


def _shows_all(scene: Scene) -> bool:
    kinds = {expression.kind for expression in scene.expressions}
    several = any(count.n > 1 for count in scene.counts)
    return kinds == {"unique", "twin"} and several and bool(scene.absent and scene.regions)


def demo_steps(scene: Scene) -> tuple[Step, ...]:
    """What to show on one scene: a caption, one of each sort of question, names, proposals."""
    from parfocal.predict.demo import Step

    steps = [Step("describe", "a grounded caption", "What is in the picture?")]
    for kind, title in (("unique", "the only one of its kind"), ("twin", "one of several alike")):
        found = [expression.text for expression in scene.expressions if expression.kind == kind]
        steps += [Step("locate", title, text) for text in found[:1]]
    steps += [Step("locate", "something that is not there", a.text) for a in scene.absent[:1]]
    counts = sorted(scene.counts, key=lambda count: count.n, reverse=True)
    steps += [Step("ask", "counting", f"How many {c.text} are there?") for c in counts[:1]]
    if scene.regions:
        boxes = scene.boxes.replace(labels=None)[list(scene.regions[:3])]
        steps.append(Step("name", "naming given boxes", "What is in these boxes?", boxes))
    return (*steps, Step("propose", "things worth asking about", "Where are things?"))


def tell(one: Shown, first: bool) -> None:
    """Print one step of the transcript."""
    from rich.text import Text

    out = console()
    if first:
        size = f"{one.picture.image.width} x {one.picture.image.height}"
        out.rule(Text(f"{one.picture.name}.png", "bold") + Text(f"  {size}", "dim"))
    out.print()
    title = Text(f"   ({one.step.title})", "dim")
    out.print(Text("> ", "dim") + Text(one.step.words, "bold") + title, soft_wrap=True)
    show.show_answer(one.answer)


def step_json(one: Shown) -> dict[str, Any]:
    """One step for `--json`: what was asked, the answer, and the picture that shows it."""
    return {
        **one.answer.to_json(),
        "kind": one.step.kind,
        "title": one.step.title,
        "question": one.step.words,
        "file": str(one.file),
    }
