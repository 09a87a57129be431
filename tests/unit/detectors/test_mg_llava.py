"""Boxes in the high-resolution square, by hand; the recorded cases are in tests/parity."""

from __future__ import annotations

from parfocal.boxes import Boxes, Frame
from parfocal.detectors.mg_llava import fit_boxes


def test_an_odd_margin_goes_to_the_right_and_half_pixels_to_the_even_side() -> None:
    boxes = Boxes([[0, 0, 3, 3], [1, 1, 2, 3]], Frame("image", 5, 10), [0.9, 0.8], ["a", "b"])
    fitted = fit_boxes(boxes, side=15)  # left margin 2, scale 1.5: 4.5 is 4, 7.5 is 8
    assert fitted.to_json() == [[3, 0, 8, 4], [4, 2, 6, 4]]
    assert fitted.labels == ("a", "b")
    assert fitted.frame == Frame("high_resolution", 15, 15)


def test_without_padding_the_sides_are_cropped_and_what_is_there_is_dropped() -> None:
    rows = [[0, 0, 4, 10], [5, 0, 10, 10], [0, 0, 5, 10]]
    boxes = Boxes(rows, Frame("image", 20, 10), labels=["gone", "half", "touching"])
    fitted = fit_boxes(boxes, side=10, pad=False)
    assert fitted.labels == ("half", "touching")
    assert fitted.to_json() == [[0, 0, 5, 10], [0, 0, 0, 10]]


def test_boxes_in_the_padding_stay_until_the_square_ends() -> None:
    boxes = Boxes([[-50, -20, 700, 500]], Frame("image", 640, 480))
    assert fit_boxes(boxes).to_json() == [[0, 72, 768, 696]]


def test_no_boxes_stay_none() -> None:
    assert len(fit_boxes(Boxes.empty(Frame("image", 640, 480)))) == 0
