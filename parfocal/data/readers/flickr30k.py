"""Flickr30k Entities: five captions a picture, whose phrases are tied to boxes.

`Sentences/<id>.txt` holds the captions, tokenised, with tagged phrases:
`[/EN#283585/people A young man] throws ...`. 283585 is the chain of all phrases that mean the same
thing; `Annotations/<id>.xml` holds the boxes of each chain, 1-based and inclusive. Chain 0 and the
type notvisual have no box, nor do chains that are the whole scene or not in the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from parfocal.data.jsonl import read_lines
from parfocal.data.readers.base import Reader
from parfocal.data.readers.pictures import Placed
from parfocal.data.sample import JSON, Sample, Turn
from parfocal.dialects.grounded import GroundedText, Phrase, Span, Text
from parfocal.errors import DataError

_TAG = re.compile(r"\[/EN#(?P<chain>\d+)(?P<types>(?:/[^/\s\]]+)*)")
NOT_VISUAL = "notvisual"

Chains = dict[int, list[list[float]]]  # chain -> its boxes, xyxy


@dataclass
class Flickr30kReader(Reader):
    """A Sample a caption: one assistant turn, phrases with boxes as Phrases, the rest plain text.

    Args:
        ids: text file of the picture ids to read, one a line; if None, `<split>.txt` of the folder
            where a split is named, else all pictures.
        unrelated: keep the captions that `UNRELATED_CAPTIONS` lists as not about their picture.
    """

    source: ClassVar[str] = "flickr30k"
    licence: ClassVar[str] = "free with citation (annotations); pictures for research only"
    files: ClassVar[tuple[str, ...]] = ("the folder with Sentences/ and Annotations/",)

    ids: str | Path | None = None
    unrelated: bool = False

    def __post_init__(self) -> None:
        """Check that everything that will be read is there."""
        super().__post_init__()
        root = self.paths[0]
        for name in ("Sentences", "Annotations"):
            if not (root / name).is_dir():
                raise DataError(
                    f"{root} has no folder {name}. Unpack annotations.zip of Flickr30k Entities "
                    "there."
                )
        self._ids = Path(self.ids) if self.ids is not None else None
        if self._ids is None and self.split:
            self._ids = root / f"{self.split}.txt"
        if self._ids is not None and not self._ids.is_file():
            raise DataError(
                f"{self._ids} does not exist. Give the file of the split's picture ids (ids=...), "
                "or no split to read all pictures."
            )
        self._unrelated = root / "UNRELATED_CAPTIONS"
        if not self.unrelated and not self._unrelated.is_file():
            raise DataError(
                f"{self._unrelated} does not exist. Fetch it from the dataset's repository, or "
                "keep captions that are not about their picture (unrelated=True)."
            )

    def samples(self) -> Iterator[Sample]:
        """Yield captions, pictures in the order of the split file, or by number."""
        root = self.paths[0]
        unrelated = set() if self.unrelated else read_unrelated(self._unrelated)
        for number in self._numbers():
            size_wh, chains = read_annotation(root / "Annotations" / f"{number}.xml")
            placed = self.pictures.place(flickr_names(number), size_wh)
            if isinstance(placed, str):
                self.skip(placed)
                continue
            sentences = root / "Sentences" / f"{number}.txt"
            if not sentences.is_file():
                raise DataError(f"{sentences} does not exist. Unpack annotations.zip again.")
            for index, (line, text) in enumerate(read_lines(sentences), start=1):
                if (number, index) in unrelated:
                    self.skip("captions that are not about their picture")
                else:
                    where = f"{sentences}:{line}"
                    pieces = parse_sentence(_decoded(text, where), where)
                    yield self._sample(number, index, pieces, chains, placed)

    def _numbers(self) -> Iterator[str]:
        if self._ids is None:
            names = (path.stem for path in (self.paths[0] / "Sentences").glob("*.txt"))
            yield from sorted(filter(str.isdecimal, names), key=int)
            return
        for line, text in read_lines(self._ids):
            number = text.decode(errors="replace").strip()
            if not number.isdecimal():
                raise DataError(f"{self._ids}:{line}: {number!r} is no picture id such as 36979.")
            yield number

    def _sample(
        self, number: str, index: int, pieces: list[Piece], chains: Chains, placed: Placed
    ) -> Sample:
        spans: list[Span] = []
        used: list[JSON] = []
        types: list[JSON] = []
        for piece in pieces:
            rows = chains.get(piece.chain, []) if piece.chain else []
            boxes, _ = self.upright(rows, placed)
            spans += [Text(" " if spans else "")]
            spans += [Phrase(piece.words, boxes) if len(boxes) else Text(piece.words)]
            if len(boxes):
                used.append(piece.chain)
                types.append(list(piece.types))
        return self.sample(
            f"{number}:{index}",
            (placed.ref,),
            turns=(Turn("assistant", GroundedText(tuple(spans))),),
            meta={"image_key": f"flickr:{number}", "chains": used, "types": types},
        )


class Piece(NamedTuple):
    """A stretch of a caption.

    Attributes:
        words: joined by blanks.
        chain: what the phrase is about; 0 for words outside phrases and phrases without boxes.
        types: of the phrase: people, clothing, scene, ...
    """

    words: str
    chain: int = 0
    types: tuple[str, ...] = ()


def parse_sentence(line: str, where: str = "a sentence") -> list[Piece]:
    """Split a line of a sentence file at its tags, which are taken out.

    A phrase ends with the token whose last character is `]`. One that never ends is plain words.

    Args:
        line: one caption.
        where: file and line, for the error.

    Raises:
        DataError: if a tag is not of this form.

    Example:
        >>> parse_sentence("[/EN#7/people A man] runs .")
        [Piece(words='A man', chain=7, types=('people',)), Piece(words='runs .', chain=0, types=())]
    """
    pieces: list[Piece] = []
    words: list[str] = []
    tag: re.Match[str] | None = None

    def close(found: re.Match[str] | None) -> None:
        if words:
            pieces.append(Piece(" ".join(words), *(_read_tag(found) if found else ())))
        words.clear()

    for token in line.split():
        opening = _TAG.fullmatch(token)
        if opening:
            close(None)
            tag = opening
        elif tag and token.endswith("]"):
            if token != "]":
                words.append(token[:-1])
            close(tag)
            tag = None
        elif token.startswith("[/EN"):
            raise DataError(f"{where}: {token!r} is no tag such as [/EN#283585/people.")
        else:
            words.append(token)
    close(None)
    return pieces


def _read_tag(tag: re.Match[str]) -> tuple[int, tuple[str, ...]]:
    types = tuple(tag["types"].split("/")[1:])
    return (0 if NOT_VISUAL in types else int(tag["chain"])), types


def read_annotation(path: Path) -> tuple[tuple[int, int], Chains]:
    """Read a picture's size (width, height) and the boxes of its chains, in the file's order.

    Raises:
        DataError: if it is not such a file.
    """
    root = parse_xml(path)
    size_wh = (_number(root, "size/width", path), _number(root, "size/height", path))
    if min(size_wh) < 1:
        raise DataError(f"{path}: the picture is {size_wh[0]}x{size_wh[1]}. Fetch the file again.")
    chains: Chains = {}
    for item in root.iterfind("object"):
        if item.find("bndbox") is None:
            continue  # the whole scene, or not in the picture
        x1, y1, x2, y2 = (
            _number(item, f"bndbox/{name}", path) for name in ("xmin", "ymin", "xmax", "ymax")
        )
        for name in item.iterfind("name"):
            chain = (name.text or "").strip()
            if not chain.isdecimal():
                raise DataError(f"{path}: an object is named {chain!r}, must be a chain's number.")
            # Pixels count from 1 and the last one is inside.
            chains.setdefault(int(chain), []).append([x1 - 1, y1 - 1, x2, y2])
    return size_wh, chains


def _number(item: Element, name: str, path: Path) -> int:
    text = item.findtext(name)
    try:
        return int(text or "")
    except ValueError as err:
        raise DataError(f"{path}: {name} is {text!r}, must be a whole number.") from err


def parse_xml(path: Path) -> Element:
    """Read a small XML file; one that declares a document type or entities is refused.

    Entities of a file can grow without bounds and name other files, and no dataset needs them.

    Raises:
        DataError: if it cannot be read, is not XML or declares anything.
    """

    def refuse(*_declared: object) -> NoReturn:
        raise DataError(
            f"{path} declares a document type, which annotations do not. Do not trust it."
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as err:
        raise DataError(f"{path} cannot be opened: {err.strerror}.") from err
    except expat.ExpatError as err:
        raise DataError(f"{path} is not XML: {err}. Fetch the file again.") from err
    return builder.close()


def read_unrelated(path: Path) -> set[tuple[str, int]]:
    """Read the list of (picture id, number of the caption from 1) that are about something else."""
    found: set[tuple[str, int]] = set()
    for number, line in read_lines(path):
        text = _decoded(line, f"{path}:{number}").strip()
        if text.startswith("#"):
            continue
        match = re.fullmatch(r"(\d+)\s+(\d+)", text)
        if match is None:
            raise DataError(
                f"{path}:{number}: {text!r} is not a picture id and a caption's number."
            )
        found.add((match[1], int(match[2])))
    return found


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as err:
        raise DataError(f"{where}: not UTF-8 at byte {err.start}: save the file as UTF-8.") from err


def flickr_names(number: str, *stated: str) -> list[str]:
    """Return the paths under which a picture of Flickr30k may be stored, as stated first."""
    folders = (
        "",
        "flickr30k-images/",
        "flickr30k_images/",
        "images/",
        "flickr30k/",
        "flickr30k/images/",
    )
    return list(dict.fromkeys([*stated, *(f"{folder}{number}.jpg" for folder in folders)]))
