"""Models: one composable grounded model, its configuration, its parts and its processor.

Importing this room registers the model with the Auto classes of Transformers.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from parfocal.models.config import ParfocalConfig
from parfocal.models.modeling import ParfocalForConditionalGeneration
from parfocal.models.processing import ParfocalProcessor

__all__ = ["ParfocalConfig", "ParfocalForConditionalGeneration", "ParfocalProcessor"]

AutoConfig.register("parfocal", ParfocalConfig)
AutoModelForImageTextToText.register(ParfocalConfig, ParfocalForConditionalGeneration)
AutoModelForCausalLM.register(ParfocalConfig, ParfocalForConditionalGeneration)
AutoProcessor.register(ParfocalConfig, ParfocalProcessor)
