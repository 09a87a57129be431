"""The kinds of drawn object that seeded scenes are composed of.

A scene is a background with pictures of objects pasted on it, so every box and every name in
it is known exactly. This module is the list of those objects: what each one is called, how it
is counted in words, which group it belongs to and which picture draws it. Every kind can be
told from every other at 40 pixels; kinds that share a noun differ in colour, and the colour is
then part of the name (`FAMILIES`).

The pictures are not part of this package. They are the Fluent Emoji drawings of Microsoft (MIT
licence), as packed in the npm package `@lobehub/fluent-emoji-3d` 1.1.0 (MIT licence), where
kind `k` is the file `assets/<k.asset>.webp`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Final

from parfocal.errors import DataError

__all__ = ["CATEGORIES", "FAMILIES", "KINDS", "Kind", "article", "kind_by_name"]


@dataclass(frozen=True)
class Kind:
    """One kind of drawn object.

    Attributes:
        name: What one of them is called, in lower case, without an article.
        plural: What several of them are called.
        category: The group it belongs to, one of `CATEGORIES`.
        asset: The stem of its picture's file name in the art package.
    """

    name: str
    plural: str
    category: str
    asset: str


# Category -> (name, asset) of its kinds, both levels in alphabetical order.
_TABLE: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "animal": (
        ("ant", "1f41c"),
        ("bee", "1f41d"),
        ("black bird", "1f426-200d-2b1b"),
        ("black cat", "1f408-200d-2b1b"),
        ("black mouse", "1f400"),
        ("brown bear", "1f43b"),
        ("butterfly", "1f98b"),
        ("camel", "1f42a"),
        ("caterpillar", "1f41b"),
        ("chick", "1f424"),
        ("cow", "1f404"),
        ("crab", "1f980"),
        ("crocodile", "1f40a"),
        ("dinosaur", "1f996"),
        ("dog", "1f415"),
        ("dolphin", "1f42c"),
        ("duck", "1f986"),
        ("elephant", "1f418"),
        ("flamingo", "1f9a9"),
        ("fox", "1f98a"),
        ("frog", "1f438"),
        ("giraffe", "1f992"),
        ("horse", "1f40e"),
        ("kangaroo", "1f998"),
        ("koala", "1f428"),
        ("ladybug", "1f41e"),
        ("lion", "1f981"),
        ("llama", "1f999"),
        ("monkey", "1f412"),
        ("octopus", "1f419"),
        ("orange cat", "1f408"),
        ("owl", "1f989"),
        ("panda", "1f43c"),
        ("parrot", "1f99c"),
        ("peacock", "1f99a"),
        ("penguin", "1f427"),
        ("pig", "1f416"),
        ("polar bear", "1f43b-200d-2744-fe0f"),
        ("rabbit", "1f407"),
        ("ram", "1f40f"),
        ("red bird", "1f426"),
        ("rooster", "1f413"),
        ("seashell", "1f41a"),
        ("shark", "1f988"),
        ("snail", "1f40c"),
        ("snake", "1f40d"),
        ("spider", "1f577-fe0f"),
        ("swan", "1f9a2"),
        ("tiger", "1f405"),
        ("turtle", "1f422"),
        ("unicorn", "1f984"),
        ("whale", "1f40b"),
        ("white mouse", "1f401"),
        ("zebra", "1f993"),
    ),
    "clothing": (
        ("backpack", "1f392"),
        ("baseball cap", "1f9e2"),
        ("brown coat", "1f9e5"),
        ("crown", "1f451"),
        ("dress", "1f457"),
        ("green helmet", "1fa96"),
        ("green shirt", "1f455"),
        ("handbag", "1f45c"),
        ("high heel", "1f460"),
        ("pair of jeans", "1f456"),
        ("pair of socks", "1f9e6"),
        ("pair of sunglasses", "1f576-fe0f"),
        ("pink shirt", "1f45a"),
        ("red boot", "1f462"),
        ("red helmet", "26d1-fe0f"),
        ("ring", "1f48d"),
        ("scarf", "1f9e3"),
        ("sun hat", "1f452"),
        ("top hat", "1f3a9"),
        ("white coat", "1f97c"),
        ("yellow boot", "1f97e"),
    ),
    "food": (
        ("avocado", "1f951"),
        ("banana", "1f34c"),
        ("beer mug", "1f37a"),
        ("bell pepper", "1fad1"),
        ("birthday cake", "1f382"),
        ("box of fries", "1f35f"),
        ("broccoli head", "1f966"),
        ("carrot", "1f955"),
        ("cheese wedge", "1f9c0"),
        ("chili pepper", "1f336-fe0f"),
        ("chocolate bar", "1f36b"),
        ("cookie", "1f36a"),
        ("croissant", "1f950"),
        ("cupcake", "1f9c1"),
        ("donut", "1f369"),
        ("drumstick", "1f357"),
        ("egg", "1f95a"),
        ("eggplant", "1f346"),
        ("grape bunch", "1f347"),
        ("green apple", "1f34f"),
        ("hamburger", "1f354"),
        ("hot dog", "1f32d"),
        ("ice cream", "1f366"),
        ("lemon", "1f34b"),
        ("loaf of bread", "1f35e"),
        ("lollipop", "1f36d"),
        ("pair of cherries", "1f352"),
        ("peach", "1f351"),
        ("pear", "1f350"),
        ("pineapple", "1f34d"),
        ("pizza slice", "1f355"),
        ("popcorn box", "1f37f"),
        ("pretzel", "1f968"),
        ("red apple", "1f34e"),
        ("sandwich", "1f96a"),
        ("strawberry", "1f353"),
        ("taco", "1f32e"),
        ("tomato", "1f345"),
        ("watermelon slice", "1f349"),
    ),
    "household": (
        ("alarm clock", "23f0"),
        ("basket", "1f9fa"),
        ("blue book", "1f4d8"),
        ("blue mailbox", "1f4eb"),
        ("camera", "1f4f7"),
        ("candle", "1f56f-fe0f"),
        ("cardboard box", "1f4e6"),
        ("chair", "1fa91"),
        ("gift box", "1f381"),
        ("gold disc", "1f4c0"),
        ("green book", "1f4d7"),
        ("lantern", "1f3ee"),
        ("laptop", "1f4bb"),
        ("lifebuoy", "1f6df"),
        ("orange book", "1f4d9"),
        ("red book", "1f4d5"),
        ("red mailbox", "1f4ee"),
        ("silver disc", "1f4bf"),
        ("suitcase", "1f9f3"),
        ("teapot", "1fad6"),
        ("telephone", "260e-fe0f"),
        ("television", "1f4fa"),
        ("trash can", "1f5d1-fe0f"),
        ("umbrella", "2602-fe0f"),
        ("vase", "1f3fa"),
    ),
    "instrument": (
        ("accordion", "1fa97"),
        ("bell", "1f514"),
        ("drum", "1f941"),
        ("guitar", "1f3b8"),
        ("microphone", "1f3a4"),
        ("piano keyboard", "1f3b9"),
        ("saxophone", "1f3b7"),
        ("trumpet", "1f3ba"),
        ("violin", "1f3bb"),
    ),
    "plant": (
        ("bouquet", "1f490"),
        ("cactus", "1f335"),
        ("hibiscus", "1f33a"),
        ("log", "1fab5"),
        ("maple leaf", "1f341"),
        ("mushroom", "1f344"),
        ("palm tree", "1f334"),
        ("pine tree", "1f332"),
        ("potted plant", "1fab4"),
        ("pumpkin", "1f383"),
        ("rose", "1f339"),
        ("sunflower", "1f33b"),
        ("tulip", "1f337"),
    ),
    "sport": (
        ("baseball", "26be"),
        ("basketball", "1f3c0"),
        ("boxing glove", "1f94a"),
        ("bronze medal", "1f949"),
        ("football", "1f3c8"),
        ("gold medal", "1f947"),
        ("ice skate", "26f8-fe0f"),
        ("kite", "1fa81"),
        ("roller skate", "1f6fc"),
        ("silver medal", "1f948"),
        ("skateboard", "1f6f9"),
        ("soccer ball", "26bd"),
        ("table tennis paddle", "1f3d3"),
        ("tennis racket", "1f3be"),
        ("trophy", "1f3c6"),
    ),
    "tool": (
        ("anchor", "2693"),
        ("axe", "1fa93"),
        ("bucket", "1faa3"),
        ("fire extinguisher", "1f9ef"),
        ("gear", "2699-fe0f"),
        ("hammer", "1f528"),
        ("key", "1f511"),
        ("kitchen knife", "1f52a"),
        ("light bulb", "1f4a1"),
        ("magnet", "1f9f2"),
        ("magnifying glass", "1f50d"),
        ("microscope", "1f52c"),
        ("padlock", "1f512"),
        ("pair of scissors", "2702-fe0f"),
        ("pencil", "270f-fe0f"),
        ("saw", "1fa9a"),
        ("screwdriver", "1fa9b"),
        ("toolbox", "1f9f0"),
        ("wrench", "1f527"),
    ),
    "toy": (
        ("balloon", "1f388"),
        ("blue ball", "1f535"),
        ("die", "1f3b2"),
        ("game controller", "1f3ae"),
        ("green ball", "1f7e2"),
        ("purple ball", "1f7e3"),
        ("puzzle piece", "1f9e9"),
        ("red ball", "1f534"),
        ("snowman", "26c4"),
        ("teddy bear", "1f9f8"),
        ("yellow ball", "1f7e1"),
    ),
    "vehicle": (
        ("ambulance", "1f691"),
        ("bicycle", "1f6b2"),
        ("blue car", "1f699"),
        ("blue plane", "2708-fe0f"),
        ("bullet train", "1f684"),
        ("canoe", "1f6f6"),
        ("delivery truck", "1f69a"),
        ("fire truck", "1f692"),
        ("flying saucer", "1f6f8"),
        ("green bus", "1f68e"),
        ("helicopter", "1f681"),
        ("kick scooter", "1f6f4"),
        ("motorcycle", "1f3cd-fe0f"),
        ("police car", "1f693"),
        ("racing car", "1f3ce-fe0f"),
        ("red car", "1f697"),
        ("red plane", "1f6e9-fe0f"),
        ("rocket", "1f680"),
        ("sailboat", "26f5"),
        ("shopping cart", "1f6d2"),
        ("steam train", "1f682"),
        ("taxi", "1f695"),
        ("tractor", "1f69c"),
        ("wheelchair", "1f9bd"),
        ("yellow bus", "1f68c"),
    ),
}

# Plurals that the rule of `_plural` does not give.
_IRREGULAR: Final[dict[str, str]] = {
    "black mouse": "black mice",
    "cactus": "cacti",
    "die": "dice",
    "kitchen knife": "kitchen knives",
    "loaf of bread": "loaves of bread",
    "maple leaf": "maple leaves",
    "scarf": "scarves",
    "snowman": "snowmen",
    "tomato": "tomatoes",
    "white mouse": "white mice",
}

# Base noun -> the kinds of that noun, told apart by their colour, in alphabetical order.
FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "apple": ("green apple", "red apple"),
    "ball": ("blue ball", "green ball", "purple ball", "red ball", "yellow ball"),
    "bird": ("black bird", "red bird"),
    "book": ("blue book", "green book", "orange book", "red book"),
    "boot": ("red boot", "yellow boot"),
    "bus": ("green bus", "yellow bus"),
    "car": ("blue car", "red car"),
    "cat": ("black cat", "orange cat"),
    "coat": ("brown coat", "white coat"),
    "disc": ("gold disc", "silver disc"),
    "helmet": ("green helmet", "red helmet"),
    "mailbox": ("blue mailbox", "red mailbox"),
    "medal": ("bronze medal", "gold medal", "silver medal"),
    "mouse": ("black mouse", "white mouse"),
    "plane": ("blue plane", "red plane"),
    "shirt": ("green shirt", "pink shirt"),
}

_VOWEL_SOUNDS: Final = ("hour", "honest", "heir")
_CONSONANT_SOUNDS: Final = ("uni", "use", "uku", "eu", "one")


def _plural(name: str) -> str:
    """Return the plural of `name`; in "box of fries" the word before "of" is counted."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    head, of, rest = name.partition(" of ")
    if head.endswith(("s", "x", "z", "ch", "sh")):
        head += "es"
    elif head.endswith("y") and head[-2] not in "aeiou":
        head = head[:-1] + "ies"
    else:
        head += "s"
    return head + of + rest


KINDS: Final[tuple[Kind, ...]] = tuple(
    Kind(name, _plural(name), category, asset)
    for category, rows in _TABLE.items()
    for name, asset in rows
)
CATEGORIES: Final[tuple[str, ...]] = tuple(_TABLE)

_BY_NAME: Final[dict[str, Kind]] = {kind.name: kind for kind in KINDS}


def kind_by_name(name: str) -> Kind:
    """Return the kind called `name`.

    Args:
        name: A singular name exactly as in `KINDS`, such as "red apple".

    Returns:
        The kind of that name.

    Raises:
        DataError: No kind has that name; the message lists the closest names.
    """
    kind = _BY_NAME.get(name)
    if kind is not None:
        return kind
    close = FAMILIES.get(name) or difflib.get_close_matches(name, _BY_NAME, n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(repr(other) for other in close)}? " if close else ""
    raise DataError(
        f"no kind of object is called {name!r}; {hint}"
        f"The {len(KINDS)} names allowed are those of parfocal.data.scenes.catalogue.KINDS."
    )


def article(name: str) -> str:
    """Return the indefinite article, "a" or "an", that goes before `name`.

    Args:
        name: A non-empty singular name, such as "orange cat".

    Returns:
        "an" before a vowel sound, else "a".
    """
    if name.startswith(_CONSONANT_SOUNDS):
        return "a"
    return "an" if name.startswith(("a", "e", "i", "o", "u", *_VOWEL_SOUNDS)) else "a"
