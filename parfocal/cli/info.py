"""`parfocal info` says what is installed; `parfocal info MODEL` what a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parfocal.cli import show
from parfocal.cli.common import JsonOption, console

if TYPE_CHECKING:
    from rich.table import Table

    from parfocal.models.info import ModelInfo


def info(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="'mini', a preset, a model folder, or a cached hub id."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a model is made of; without MODEL, what is installed, for a bug report.

    Of a model: parameters, work of a prefill, tokens of a picture and memory.

    Example: parfocal info groma_7b
    """
    if model is None:
        show_facts(collect_facts(), as_json)
    else:
        show_model(find_model(model), as_json)


def find_model(name: str) -> ModelInfo:
    """Describe a bundled model, a preset, or the model of a folder or cached hub id."""
    from parfocal.hub import BUNDLED
    from parfocal.models import info as work
    from parfocal.models.checkpoints.sources import local_folder
    from parfocal.models.presets import PRESETS

    if name in PRESETS and name not in BUNDLED:
        return work.preset_info(name)
    return work.folder_info(local_folder(name), name)


def show_model(found: ModelInfo, as_json: bool) -> None:
    """Print a model's tables."""
    if as_json:
        show.print_json(found.to_json())
        return
    out = console()
    out.print(part_table(found))
    out.print()
    if found.reported is not None:
        off = 100 * (found.parameters / (found.reported * 1e9) - 1)
        out.print(f"the paper writes {found.reported} B parameters ({off:+.1f} %)")
    if found.image_tokens:
        out.print(
            f"a prompt: {found.image_tokens} image tokens + {found.region_tokens} for "
            f"{found.region_slots} region slots + {found.text_tokens} of text "
            f"= {found.prompt_tokens}"
        )
        out.print("FLOPs: of one picture and this prompt; a multiply-add is 2")
        out.print()
    out.print(memory_table(found))


def part_table(found: ModelInfo) -> Table:
    """One line a part: kind, parameters and work, with the sums."""
    table = _table(found.name, "kind")
    for name in ("parameters", "GFLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in found.parts:
        table.add_row(part.name, part.kind, f"{part.parameters:,}", _giga(part.flops))
    table.add_section()
    total = f"{found.parameters:,}"
    table.add_row("all", f"{found.parameters / 1e9:.2f} B", total, _giga(found.flops))
    return table


def memory_table(found: ModelInfo) -> Table:
    """One line a type of number: gigabytes of weights, of the cache, and of both."""
    table = _table("memory, GB")
    for name in ("weights", "cache of the prompt", "both"):
        table.add_column(name, justify="right", no_wrap=True)
    for dtype, sizes in found.memory().items():
        table.add_row(dtype, *(f"{size / 1e9:.2f}" for size in sizes.values()))
    return table


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name)
    return table


def _giga(flops: int | None) -> str:
    return "-" if flops is None else f"{flops / 1e9:,.1f}"


def show_facts(facts: dict[str, dict[str, Any]], as_json: bool) -> None:
    """Print what is installed, group by group."""
    if as_json:
        show.print_json(facts)
        return
    from rich.text import Text

    out = console()
    for group, values in facts.items():
        out.print(Text(group, "bold"))
        for name, value in values.items():
            out.print(f"  {name:<16} ", end="")
            out.print(str(value), soft_wrap=True)


def collect_facts() -> dict[str, dict[str, Any]]:
    """What `parfocal info` prints, group by group."""
    import platform
    import sys

    import parfocal

    root = Path(parfocal.__file__).parent
    return {
        "versions": {
            "parfocal": parfocal.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _LIBRARIES},
            "platform": platform.platform(),
        },
        "devices": _devices(),
        "package": {"folder": str(root), "executable": sys.executable, **_package_data(root)},
        "hub": _hub(),
    }


_LIBRARIES = (
    *("torch", "torchvision", "transformers", "numpy", "pillow", "safetensors", "typer", "rich"),
    *("accelerate", "scipy", "pyarrow", "timm"),
)


def _version(library: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> dict[str, Any]:
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu_threads": torch.get_num_threads(),
        "cuda": ", ".join(cuda) or "none",
        "mps": "available" if torch.backends.mps.is_available() else "none",
    }


def _package_data(root: Path) -> dict[str, str]:
    """The bundled files and their sizes; a missing one is said to be missing."""
    weights = sorted(root.rglob("*.safetensors"))
    found = {str(path.relative_to(root)): path for path in weights}
    found |= {f"eval/scenes/{name}": root / "eval" / "scenes" / name for name in _SCENE_FILES}
    return {
        name: f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "missing"
        for name, path in found.items()
    }


_SCENE_FILES = ("scenes.zip", "scenes.jsonl")


def _hub() -> dict[str, str]:
    from huggingface_hub import constants

    return {
        "offline": "yes" if constants.HF_HUB_OFFLINE else "no",
        "cache": str(constants.HF_HUB_CACHE),
    }
