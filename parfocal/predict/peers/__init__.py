"""Peers: models of other families behind the verbs of `parfocal.load`.

Which peer speaks for a checkpoint is decided by `model_type` in its config.json and nothing else:
the same numbers mean different boxes in different families, and no answer tells which. A checkpoint
that was taught another family's way of writing boxes is asked in that dialect where the user names
it, for its config does not.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from parfocal.errors import CheckpointError

if TYPE_CHECKING:
    from parfocal.predict.peers.files import Checkpoint
    from parfocal.predict.peers.verbs import PeerPredictor

# model_type -> class; strings, so that reading the table loads no model code.
PEERS: Final[dict[str, str]] = {
    "qwen2_vl": "parfocal.predict.peers.chat_models:Qwen2VLPeer",
    "qwen2_5_vl": "parfocal.predict.peers.chat_models:Qwen25VLPeer",
    "qwen3_vl": "parfocal.predict.peers.chat_models:Qwen3VLPeer",
    "qwen3_vl_moe": "parfocal.predict.peers.chat_models:Qwen3VLPeer",
    "internvl": "parfocal.predict.peers.chat_models:InternVLPeer",
    "kosmos-2": "parfocal.predict.peers.kosmos2:Kosmos2Peer",
    "florence2": "parfocal.predict.peers.florence2:Florence2Peer",
    "paligemma": "parfocal.predict.peers.paligemma:PaliGemmaPeer",
    "grounding-dino": "parfocal.predict.peers.detectors:GroundingDinoPeer",
    "mm-grounding-dino": "parfocal.predict.peers.detectors:GroundingDinoPeer",
    "owlv2": "parfocal.predict.peers.detectors:Owlv2Peer",
}
# Their boxes are numbers of the network itself, which half precision rounds by several pixels.
DETECTORS: Final = tuple(name for name, home in PEERS.items() if ".detectors:" in home)

__all__ = ["DETECTORS", "PEERS", "load_peer", "model_type_of"]


def model_type_of(folder: Path) -> str | None:
    """What the folder's config.json says its model is; None if there is no readable one."""
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = config.get("model_type") if isinstance(config, dict) else None
    return kind if isinstance(kind, str) else None


def load_peer(checkpoint: Checkpoint) -> PeerPredictor:
    """Load a checkpoint of one of the families of `PEERS`.

    Raises:
        CheckpointError: if the family is not known or the files do not fit together.
        ConfigError: if the family can speak no other dialect.
    """
    model_type = model_type_of(checkpoint.folder)
    if model_type not in PEERS:
        raise CheckpointError(
            f"{checkpoint.folder} is of model_type {model_type!r}; the known peers are "
            f"{', '.join(PEERS)}."
        )
    module, kind = PEERS[model_type].split(":")
    peer: PeerPredictor = getattr(importlib.import_module(module), kind).load(checkpoint)
    return peer
