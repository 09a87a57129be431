"""Draw: the same key, the same choices, whatever Python or process."""

from __future__ import annotations

from collections import Counter

from parfocal.data.views.draw import Draw


def test_choices_are_those_of_every_other_day():
    # Written down once: they must not change, or trained data would.
    draw = Draw(3, "coco:train:9", "rec")
    assert [draw.below(10) for _ in range(8)] == [1, 4, 3, 0, 5, 3, 9, 7]
    assert [round(draw.uniform(1.0, 1.2), 6) for _ in range(2)] == [1.100895, 1.00397]
    assert "".join(draw.shuffled("abcdef")) == "edcabf"


def test_every_part_of_the_key_counts():
    keys = [(0, "a", "rec"), (1, "a", "rec"), (0, "b", "rec"), (0, "a", "absent"), (0, "ar", "ec")]
    streams = {tuple(Draw(*key).below(1000) for _ in range(6)) for key in keys}
    assert len(streams) == len(keys)


def test_shuffling_keeps_everything_and_draws_no_more_than_it_gives():
    assert sorted(Draw(1).shuffled(range(20))) == list(range(20))
    some, all_of_it = Draw(2), Draw(2)
    first = next(some.shuffled(range(20)))
    assert first == all_of_it.below(20)
    assert some.below(1000) == all_of_it.below(1000)


def test_choices_are_even():
    counts = Counter(next(Draw(seed, "x").shuffled("abcd")) for seed in range(4000))
    assert set(counts) == set("abcd")
    assert all(900 < count < 1100 for count in counts.values())  # 3.6 standard deviations
