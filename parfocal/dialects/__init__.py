"""Dialects: GroundedText to and from the text of a family of models; a file a dialect."""

from __future__ import annotations

from parfocal.dialects.base import Dialect, Parsed, Problem, View
from parfocal.dialects.cogvlm import CogVLM
from parfocal.dialects.coordinates import Coordinates
from parfocal.dialects.deepseek_vl2 import DeepSeekVL2
from parfocal.dialects.detections import read_detections
from parfocal.dialects.ferret import Ferret
from parfocal.dialects.florence2 import Florence2
from parfocal.dialects.frames import padded_unit_square
from parfocal.dialects.gemini import Gemini
from parfocal.dialects.glamm import Glamm
from parfocal.dialects.grounded import (
    GroundedText,
    Nothing,
    ObjectRef,
    Phrase,
    RegionRef,
    Span,
    Text,
)
from parfocal.dialects.groundinggpt import GroundingGPT
from parfocal.dialects.internvl import InternVL
from parfocal.dialects.kosmos2 import Kosmos2
from parfocal.dialects.llava import Llava, LlavaUnpadded
from parfocal.dialects.minigpt_v2 import MiniGPTv2
from parfocal.dialects.molmo import Molmo, Molmo2
from parfocal.dialects.paligemma import PaliGemma
from parfocal.dialects.plain import Plain
from parfocal.dialects.qwen_vl import Qwen2VL, Qwen3VL, Qwen25VL, QwenVL, smart_resize
from parfocal.dialects.region_tokens import RegionTokens, parse_region_token, region_token
from parfocal.dialects.rex_omni import RexOmni
from parfocal.dialects.shikra import Shikra
from parfocal.errors import DialectError

DIALECTS: dict[str, Dialect] = {
    "coordinates": Coordinates(),
    "region_tokens": RegionTokens(),
    "plain": Plain(),
    "qwen_vl": QwenVL(),
    "qwen2_vl": Qwen2VL(),
    "qwen2_5_vl": Qwen25VL(),
    "qwen3_vl": Qwen3VL(),
    "internvl": InternVL(),
    "deepseek_vl2": DeepSeekVL2(),
    "kosmos2": Kosmos2(),
    "florence2": Florence2(),
    "paligemma": PaliGemma(),
    "groundinggpt": GroundingGPT(),
    "shikra": Shikra(),
    "ferret": Ferret(),
    "cogvlm_grounding": CogVLM(),
    "llava_1_5": Llava(),
    "llava_1_5_unpadded": LlavaUnpadded(),
    "minigpt_v2": MiniGPTv2(),
    "rex_omni": RexOmni(),
    "molmo": Molmo(),
    "molmo2": Molmo2(),
    "gemini": Gemini(),
    "glamm": Glamm(),
}


def get_dialect(name: str) -> Dialect:
    """The dialect called `name`.

    Raises:
        DialectError: if there is none; the message lists the names.
    """
    if name not in DIALECTS:
        raise DialectError(f"dialect {name!r} is not known. Dialects: {', '.join(DIALECTS)}.")
    return DIALECTS[name]


__all__ = [
    "DIALECTS",
    "Dialect",
    "GroundedText",
    "Nothing",
    "ObjectRef",
    "Parsed",
    "Phrase",
    "Problem",
    "RegionRef",
    "Span",
    "Text",
    "View",
    "get_dialect",
    "padded_unit_square",
    "parse_region_token",
    "read_detections",
    "region_token",
    "smart_resize",
]
