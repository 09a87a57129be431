"""Configuration of the composable model: the parts' dataclasses, `ParfocalConfig` around them.

Every part rejects unknown keys; the top level, which has to admit the extras that Transformers
adds, rejects keys that are close to a field of ours (`fusoin=...`, `vision_config=...`). What does
not fit is a `ConfigError` and is never rewritten. Parts may be changed one after the other, so the
rules between them are checked when a config is made, and again when a model is built of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from parfocal.errors import ConfigError
from parfocal.models.config_part import PartConfig, refuse_misspelt
from parfocal.models.config_regions import ProposerConfig, RegionsConfig
from parfocal.models.config_vision import FusionConfig, ProjectorConfig, VisionConfig


@dataclass(frozen=True)
class TokenIds(PartConfig):
    """Ids of the tokens that the model replaces by features; -1 where the dialect has none.

    `image`, `region` and `object` may lie beyond the token table: they are never looked up.

    Attributes:
        image: one a fused vision token.
        region: one a region slot.
        region_feature: a user region's feature in the text.
        ground_box: a box of the answer whose slot is not known yet (training only).
        first_region: id of `<r0>`; the other region names follow it.
        object: one a token of an object image (`regions.kind` `crop`).
    """

    image: int = -1
    region: int = -1
    region_feature: int = -1
    ground_box: int = -1
    first_region: int = -1
    object: int = -1


_PARTS: dict[str, type[PartConfig]] = {
    "vision": VisionConfig,
    "fusion": FusionConfig,
    "projector": ProjectorConfig,
    "proposer": ProposerConfig,
    "regions": RegionsConfig,
    "token_ids": TokenIds,
}


@strict
class ParfocalConfig(PreTrainedConfig):
    """A whole model: `vision -> fusion -> projector`, `proposer -> regions`, `text` and a dialect.

    Example:
        >>> config = ParfocalConfig(vision={"resize": "squash"}, dialect="plain")
        >>> config.vision.resize
        'squash'
    """

    model_type = "parfocal"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2")
    }

    vision: Any = None
    fusion: Any = None
    projector: Any = None
    proposer: Any = None
    regions: Any = None
    token_ids: Any = None
    text_config: dict | PreTrainedConfig | None = None
    dialect: str = "plain"
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        ours = [item for item in type(self).__annotations__ if not item.startswith("_")]
        for key in kwargs:
            owners = [name for name, part in _PARTS.items() if key in part.__dataclass_fields__]
            if owners:
                raise ConfigError(
                    f"ParfocalConfig has no field {key!r}; it is one of {' and '.join(owners)}."
                )
            if key.endswith("_token_id"):
                continue  # of Transformers, and no misspelt `token_ids`
            bare = key.removesuffix("_config")  # other families name their parts so
            close = [name for name in ours if name in (bare, f"{bare}_config")]
            close = close or difflib.get_close_matches(key, ours, n=1, cutoff=0.75)
            if close:
                raise ConfigError(
                    f"ParfocalConfig has no field {key!r}. Did you mean {close[0]!r}?"
                )
        given = self.text_config
        super().__post_init__(**kwargs)
        if isinstance(given, Mapping):
            refuse_misspelt(given, self.text_config, "text_config")
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self.check_parts()

    def __setattr__(self, name: str, value: Any) -> None:
        """Make a part of a mapping; what it leaves out stays as the part has it now.

        None is a part as it is when nobody says anything of it.
        """
        part = _PARTS.get(name)
        if part is not None:
            now = getattr(self, name, None)
            if isinstance(now, part) and isinstance(value, Mapping):
                value = {**now.to_dict(), **value}
            value = part.from_dict({} if value is None else value)
        super().__setattr__(name, value)

    def check_parts(self) -> None:
        """Refuse parts that do not fit each other, with a ConfigError."""
        if self.fusion.kind != "none" and len(self.vision.towers) != 2:
            raise ConfigError(
                f"fusion.kind is {self.fusion.kind!r} but vision has one tower; "
                "give two or use 'none'."
            )
        if self.fusion.kind == "none" and len(self.vision.towers) != 1:
            raise ConfigError(
                "vision has two towers but fusion.kind is 'none'; use 'concat' or 'conv_gate'."
            )
        tower = self.vision.level_tower
        levels = len(tower.level_layers)
        maps = len(tower.proposer_layers) or levels
        if (self.proposer.kind != "none" and maps == 0) or (
            self.regions.from_levels and levels == 0
        ):
            raise ConfigError(
                f"a proposer or region encoder needs vision.towers[{self.vision.levels_from}]"
                ".level_layers; it names none."
            )
        if self.fusion.kind == "patch_info_mining" and self.fusion.mined == "levels" and not levels:
            raise ConfigError("fusion.mined is 'levels' but no tower names level_layers.")
        if self.regions.merge != "concat" and self.regions.kind != "multiscale_mean":
            raise ConfigError(
                f"regions.merge is {self.regions.merge!r}, which regions.kind 'multiscale_mean' "
                f"has and {self.regions.kind!r} has not; use 'concat'."
            )
        if self.proposer.kind != "none" and not self.regions.from_levels:
            raise ConfigError(
                "proposer without regions: proposed boxes would never reach the text; "
                f"set regions.kind, which is {self.regions.kind!r}, to 'multilevel_roi' or "
                "'multiscale_mean'."
            )
        if self.regions.kind == "multilevel_roi" and len(self.regions.level_scales) > levels:
            raise ConfigError(
                f"regions.level_scales has {len(self.regions.level_scales)} entries "
                f"for {levels} level(s) of the tower."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that `from_dict` reads back to an equal config."""
        values = super().to_dict()
        values.update({name: getattr(self, name).to_dict() for name in _PARTS})
        return values
