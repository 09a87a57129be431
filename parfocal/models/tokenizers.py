"""A small byte-level BPE tokenizer learned from a model's own sentences; big models bring theirs.

Byte-level means that any text can be written and read back; words that were never seen become
several tokens. Of either kind, what a folder holds is read by `load_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from parfocal.dialects import Dialect
from parfocal.dialects.region_tokens import region_token
from parfocal.errors import CheckpointError
from parfocal.hub import first_line
from parfocal.models.settings import PromptTemplate

PAD, END, IMAGE = "<pad>", "<end>", "<image>"


def train_tokenizer(
    sentences: Iterable[str],
    dialect: Dialect,
    template: PromptTemplate,
    num_regions: int,
    vocab_size: int,
) -> PreTrainedTokenizerFast:
    """Learn a tokenizer that adds the dialect's markup, the template's marks and region names.

    It also adds the placeholder of image tokens where the dialect has none.

    Args:
        sentences: plain text without markup.
        dialect: its `special_tokens` are added in their order.
        template: its `user` and `assistant` marks are added.
        num_regions: n of the names `<r0>` to `<r{n-1}>`, which get consecutive ids.
        vocab_size: entries in all, added tokens included (fewer when the text holds fewer words).
    """
    speakers = [mark for mark in (template.user, template.assistant) if mark]
    marks = [PAD, END, *speakers, *dialect.special_tokens]
    if IMAGE not in marks:  # pictures stand in the text of every dialect
        marks.append(IMAGE)
    names = [region_token(index) for index in range(num_regions)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(names),
        special_tokens=marks,
        show_progress=False,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder as Transformers does, without running code beside it.

    Raises:
        CheckpointError: if there is none, or it cannot be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as err:  # its readers raise whatever broken files lead to, nameless ones too
        raise CheckpointError(
            f"{folder} holds no tokenizer that Transformers can read ({first_line(err)}). Copy the "
            "folder again, with tokenizer.json (or tokenizer.model) and tokenizer_config.json."
        ) from err
    return tokenizer
