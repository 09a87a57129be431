"""Readers: one file a dataset, each a source of Samples. `READERS` is the whole list."""

from __future__ import annotations

import difflib

from parfocal.data.readers.ai2d import Ai2dReader
from parfocal.data.readers.base import Reader
from parfocal.data.readers.coco import CocoReader
from parfocal.data.readers.docvqa import DocVqaReader
from parfocal.data.readers.dvqa import DvqaReader
from parfocal.data.readers.flickr30k import Flickr30kReader
from parfocal.data.readers.grit import GritReader
from parfocal.data.readers.groma_detection import GromaDetectionReader
from parfocal.data.readers.groma_flickr import GromaFlickrReader
from parfocal.data.readers.groma_grit import GromaGritReader
from parfocal.data.readers.groma_instruct import GromaInstructReader
from parfocal.data.readers.groma_rec import GromaRecReader
from parfocal.data.readers.groma_region_caption import GromaRegionCaptionReader
from parfocal.data.readers.llava import (
    AllavaCaptionReader,
    AllavaInstructReader,
    LlavaInstructReader,
    LlavaMix665kReader,
    LlavaPretrainReader,
    ShareGpt4vPretrainReader,
    ShareGpt4vReader,
)
from parfocal.data.readers.llava_video import LlavaVideoReader
from parfocal.data.readers.lvis import LvisReader
from parfocal.data.readers.objects365 import Objects365Reader
from parfocal.data.readers.openimages import OpenImagesReader
from parfocal.data.readers.refcoco import RefCocoReader
from parfocal.data.readers.refcoco_jsonl import RefCocoJsonlReader
from parfocal.data.readers.refcoco_mdetr import RefCocoMdetrReader
from parfocal.data.readers.sa1b import Sa1bReader
from parfocal.data.readers.v3det import V3DetReader
from parfocal.data.readers.video_chatgpt import VideoChatGptReader
from parfocal.data.readers.visual_genome import (
    VgObjectsReader,
    VgQasReader,
    VgRegionsReader,
    VgRelationshipsReader,
)
from parfocal.errors import ConfigError

# Datasets as people have them on disk. Seeded scenes, which have no files, are `readers.scenes`.
READERS: dict[str, type[Reader]] = {
    "ai2d": Ai2dReader,
    "allava_caption": AllavaCaptionReader,
    "allava_instruct": AllavaInstructReader,
    "coco": CocoReader,
    "docvqa": DocVqaReader,
    "dvqa": DvqaReader,
    "flickr30k": Flickr30kReader,
    "grit": GritReader,
    "groma_detection": GromaDetectionReader,
    "groma_flickr": GromaFlickrReader,
    "groma_grit": GromaGritReader,
    "groma_instruct": GromaInstructReader,
    "groma_rec": GromaRecReader,
    "groma_region_caption": GromaRegionCaptionReader,
    "llava_instruct": LlavaInstructReader,
    "llava_mix665k": LlavaMix665kReader,
    "llava_pretrain": LlavaPretrainReader,
    "llava_video": LlavaVideoReader,
    "lvis": LvisReader,
    "objects365": Objects365Reader,
    "openimages": OpenImagesReader,
    "refcoco": RefCocoReader,
    "refcoco_jsonl": RefCocoJsonlReader,
    "refcoco_mdetr": RefCocoMdetrReader,
    "sa1b": Sa1bReader,
    "sharegpt4v": ShareGpt4vReader,
    "sharegpt4v_pretrain": ShareGpt4vPretrainReader,
    "v3det": V3DetReader,
    "vg_objects": VgObjectsReader,
    "vg_qas": VgQasReader,
    "vg_regions": VgRegionsReader,
    "vg_relationships": VgRelationshipsReader,
    "video_chatgpt": VideoChatGptReader,
}


def get_reader(name: str) -> type[Reader]:
    """Return the reader of a dataset; ConfigError lists the names."""
    if name not in READERS:
        near = difflib.get_close_matches(name, READERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ConfigError(f"no reader {name!r}{hint} There are {', '.join(sorted(READERS))}.")
    return READERS[name]
