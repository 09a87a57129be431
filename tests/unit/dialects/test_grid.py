import pytest
from hypothesis import given
from hypothesis import strategies as st

from parfocal.dialects.grid import Grid

GRIDS = {
    "rounds": Grid(1000),
    "cuts": Grid(1000, top=999, cut=True),
    "middle of a bin": Grid(1000, top=999, cut=True, shift=0.5),
    "decimals": Grid(1, decimals=3),
    "percent": Grid(100, decimals=1),
    "without the last": Grid(644, top=643),
}


@pytest.mark.parametrize(
    ("grid", "fraction", "written"),
    [
        pytest.param(Grid(1000), 0.3456, "346", id="nearest"),
        pytest.param(Grid(1000), 0.0005, "0", id="halves go to the even number, as in the models"),
        pytest.param(Grid(1000, cut=True), 0.3456, "345", id="cut"),
        pytest.param(Grid(32, cut=True), 214 * (1 / 428), "16", id="a whole number but for a hair"),
        pytest.param(Grid(1000, top=999), 1.0, "999", id="top"),
        pytest.param(Grid(1000), -0.2, "0", id="never below 0"),
        pytest.param(Grid(1023, width=4), 0.25, "0256", id="width"),
        pytest.param(Grid(1, decimals=3), 0.5, "0.500", id="all decimals"),
        pytest.param(Grid(1, decimals=3, least=0), 0.5, "0.5", id="no zeros at the end"),
        pytest.param(Grid(1, decimals=3, least=0), 1.0, "1", id="no point either"),
        pytest.param(Grid(1, decimals=2, least=1), 0.0, "0.0", id="but one decimal"),
    ],
)
def test_write(grid: Grid, fraction: float, written: str) -> None:
    assert grid.write(fraction) == written


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@given(st.floats(0, 1))
def test_error_bounds_what_is_lost(grid: Grid, fraction: float) -> None:
    assert abs(grid.read(float(grid.write(fraction))) - fraction) <= grid.error + 1e-12


@pytest.mark.parametrize(
    ("grid", "error"),
    [(GRIDS["rounds"], 0.0005), (GRIDS["cuts"], 0.001), (GRIDS["middle of a bin"], 0.0005)],
)
def test_error(grid: Grid, error: float) -> None:
    assert grid.error == pytest.approx(error)


@pytest.mark.parametrize(
    ("grid", "text", "complete"),
    [
        pytest.param(Grid(1, decimals=3), "0.12", False, id="a decimal may be missing"),
        pytest.param(Grid(1, decimals=3), "0.125", True, id="all decimals"),
        pytest.param(Grid(1000, width=3), "12", False, id="a digit may be missing"),
        pytest.param(Grid(1000, width=3), "012", True, id="all digits"),
        pytest.param(Grid(1000), "999", False, id="nobody knows"),
    ],
)
def test_is_complete(grid: Grid, text: str, complete: bool) -> None:
    assert grid.is_complete(text) is complete


def test_fractions_are_told_from_numbers_only_where_none_is_written() -> None:
    assert Grid(1000).is_fraction(0.5)
    assert not Grid(1000).is_fraction(1.0)
    assert not Grid(1, decimals=3).is_fraction(0.5)
    assert not Grid(100, decimals=1).is_fraction(0.5)
