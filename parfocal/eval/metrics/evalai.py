"""The normal form in which EvalAI's VQA servers compare short answers, and its punctuation rules.

Lower case, no punctuation, no articles, numbers up to ten as digits, apostrophes put back into
contractions. Its rules are what published numbers rest on, so its quirks are kept and named.

Source: VQA evaluation script (GT-Vision-Lab/VQA, BSD-2-Clause) as varied by MMF and LLaVA's
m4c_evaluator, which MG-LLaVA's official mg_llava/evaluation/m4c_evaluator.py copies.
"""

from __future__ import annotations

import re

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # the script passes a flag of this value where the count belongs
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)
_NUMBERS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBER_WORDS)}
# Each is put back from every way of leaving one apostrophe out; those with a capital in the
# script's table can never match, as words are lower-cased first, and are left out here.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""
_SPELLING = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTIONS.split()
    for place, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the script's table has this one the wrong way round


def remove_punctuation(text: str) -> str:
    """Delete punctuation marks, or put a space where one stood between two words.

    A mark is deleted everywhere if it has a space beside it somewhere, or if the text has a comma
    between two digits; otherwise each becomes a space. Of the full stops, the first 32 that no
    digit follows are deleted.

    Source: VQA evaluation script, processPunctuation. Deviates: no; its look-behind for digits
    before a full stop is mistyped there and does nothing, here likewise.

    Example:
        >>> remove_punctuation("black/white, 3.5 m."), remove_punctuation("1,000-2,000")
        ('black white 3.5 m', '10002000')
    """
    between_digits = _THOUSANDS.search(text) is not None
    found = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_space or between_digits else " ")
    return _PERIOD.sub("", found, count=_MOST_PERIODS)


def evalai_normalise(text: str) -> str:
    """The form in which TextVQA and VQAv2 answers are compared.

    Source: MG-LLaVA official mg_llava/evaluation/m4c_evaluator.py, EvalAIAnswerProcessor.
    Deviates: no. Commas and question marks go before any other rule, so that "left,right" becomes
    one word; "'s" is split off and then stays, so that "it's" is "it 's".

    Example:
        >>> evalai_normalise("The two  dogs!"), evalai_normalise("dont know")
        ('2 dogs', "don't know")
    """
    lowered = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    spaced = lowered.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBERS.get(word, word) for word in remove_punctuation(spaced).lower().split())
    return " ".join(_SPELLING.get(word, word) for word in words if word not in _ARTICLES)
