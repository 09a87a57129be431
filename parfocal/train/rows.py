"""Rows of the token table and the head that stay as they are while those of new tokens learn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from parfocal.errors import ConfigError


@contextmanager
def held_rows(model: nn.Module, first: int) -> Iterator[None]:
    """Give the first rows no gradient; without weight decay, AdamW then leaves them bit-identical.

    Args:
        model: of which the token table, the head, both or neither train.
        first: row that learns first; 0 holds none.

    Raises:
        ConfigError: as `check_rows` does.

    Source: Groma (arXiv:2404.13013), official code at d3a95b6, where the rows of new tokens are
        tables of their own.
    Deviates: no.
    """

    def hold(gradient: Tensor) -> Tensor:
        held = gradient.clone()
        held[:first] = 0
        return held

    check_rows(model, first)
    handles = [
        table.register_hook(hold) for table in _tables(model) if first and table.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_rows(model: nn.Module, first: int) -> None:
    """Raise ConfigError if no row from `first` on is left that could learn."""
    rows = min(map(len, _tables(model)))
    if first >= rows:
        raise ConfigError(
            f"first_row is {first}, but there are {rows} tokens: no row of them would learn. "
            "Set it to the number of tokens that the language model had before new ones were added."
        )


def held_weights(model: nn.Module, first: int) -> int:
    """How many weights before row `first` of tables that train do not learn."""
    return sum(first * table.shape[1] for table in _tables(model) if table.requires_grad)


def _tables(model: nn.Module) -> set[nn.Parameter]:
    """The token table and the head, which may be one."""
    return {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
