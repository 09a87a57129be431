"""How one box stands in the output of each dialect, to know which tokens wrote its numbers.

A dialect reads boxes out of a text and does not say where they stood. Here a pattern finds what may
be a box, and the dialect itself reads that piece alone: what is no box to it counts for nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class BoxForm:
    """How one box of a dialect is found in an output.

    Attributes:
        pattern: matches a box; its first group holds the numbers.
        around: what makes a match an output of its own.
    """

    pattern: re.Pattern[str]
    around: tuple[str, str] = ("", "")


_NUMBERS = r"[0-9.]+(?:\s*,\s*[0-9.]+){3}"
_PAIR = r"\(\s*[0-9.]+\s*,\s*[0-9.]+\s*\)"
_LIST = re.compile(rf"(\[\s*{_NUMBERS}\s*\])")
_IN_LIST = re.compile(rf"({_NUMBERS})")
_BRACKETS = BoxForm(_LIST)


def _json(*keys: str) -> BoxForm:
    return BoxForm(re.compile(rf'"(?:{"|".join(keys)})"\s*:\s*(\[[^\[\]]*\])'), ("{", "}"))


# dialect -> form, of every dialect that writes boxes
BOX_FORMS: Final[dict[str, BoxForm]] = {
    "qwen_vl": BoxForm(re.compile(rf"({_PAIR}\s*,\s*{_PAIR})"), ("<box>", "</box>")),
    "qwen2_vl": BoxForm(re.compile(r"<\|box_start\|>(\(.*?\))<\|box_end\|>", re.DOTALL)),
    "qwen2_5_vl": _json("bbox_2d", "point_2d"),
    "qwen3_vl": _json("bbox_2d", "point_2d"),
    "internvl": BoxForm(_LIST, ("<box>[", "]</box>")),
    "deepseek_vl2": BoxForm(_LIST, ("<|det|>[", "]<|/det|>")),
    "kosmos2": BoxForm(re.compile(r"((?:<patch_index_\d+>){2})"), ("<object>", "</object>")),
    "florence2": BoxForm(re.compile(r"((?:<loc_\d+>){4})")),
    "paligemma": BoxForm(re.compile(r"((?:<loc\d+>){4})")),
    "groundinggpt": _BRACKETS,
    "coordinates": _BRACKETS,
    "llava_1_5": _BRACKETS,
    "llava_1_5_unpadded": _BRACKETS,
    "ferret": _BRACKETS,
    "shikra": BoxForm(_IN_LIST, ("[", "]")),
    "cogvlm_grounding": BoxForm(_IN_LIST, ("[[", "]]")),
    "minigpt_v2": BoxForm(re.compile(r"((?:<\d{1,3}>){4})"), ("{", "}")),
    "rex_omni": BoxForm(re.compile(r"((?:<\d{1,4}>){2,})"), ("<|box_start|>", "<|box_end|>")),
    "molmo": BoxForm(
        re.compile(r'\b(x\d*="[0-9.]+"\s+y\d*="[0-9.]+")'), ("<points ", ">a</points>")
    ),
    "molmo2": BoxForm(
        re.compile(r"\b(\d+ \d{3,} \d{3,})\b"), ('<points coords="1 ', '">a</points>')
    ),
    "gemini": _json("box_2d", "point"),
}
