"""Sprites: read from an archive made here; fetched only through `npm`, and only the right bytes."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from parfocal.data.scenes import sprites
from parfocal.data.scenes.catalogue import KINDS, Kind
from parfocal.data.scenes.sprites import (
    MIP_SIDES,
    SpriteBank,
    cache_dir,
    fetch_art,
    load_sprites,
)
from parfocal.errors import DataError

THREE = KINDS[:3]


def webp(colour: tuple[int, int, int], box: tuple[int, int, int, int] | None) -> bytes:
    """A transparent picture of 64 x 64 with one opaque rectangle."""
    picture = Image.new("RGBA", (64, 64))
    if box:
        ImageDraw.Draw(picture).rectangle(box, fill=(*colour, 255))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def archive(path: Path, assets: dict[str, bytes]) -> Path:
    """Pack files as npm does."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in assets.items():
            member = tarfile.TarInfo(f"package/assets/{name}.webp")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def art(path: Path, kinds: tuple[Kind, ...] = THREE) -> Path:
    """An archive with a rectangle of 32 x 16 pixels for every kind, and one picture too many."""
    rows = {kind.asset: webp((80 * i, 10, 200), (8, 20, 39, 35)) for i, kind in enumerate(kinds)}
    return archive(path, {"spare": webp((1, 2, 3), (0, 0, 5, 5)), **rows})


def test_reads_cuts_and_shrinks(tmp_path):
    bank = load_sprites(art(tmp_path / "art.tgz"), THREE)
    assert bank.kinds == THREE
    for stack in bank.mips:
        assert [picture.size for picture in stack] == [(side, side // 2) for side in MIP_SIDES]
        assert {picture.mode for picture in stack} == {"RGBa"}
        assert np.asarray(stack[0])[..., 3].min() == 255  # cut to the outline: no border is left
    assert bank.mips[1][0].getpixel((80, 40)) == (80, 10, 200, 255)


def test_kinds_keep_the_order_asked_for(tmp_path):
    bank = load_sprites(art(tmp_path / "art.tgz"), THREE[::-1])
    assert [picture[0].getpixel((80, 40))[0] for picture in bank.mips] == [160, 80, 0]


@pytest.mark.parametrize(
    ("side", "stored"), [(10, 40), (40, 40), (41, 56), (112, 112), (160, 160), (300, 160)]
)
def test_sprite_is_the_smallest_that_is_large_enough(tmp_path, side, stored):
    bank = load_sprites(art(tmp_path / "art.tgz"), THREE)
    assert max(bank.sprite(0, side).size) == stored


def test_missing_kinds_are_named(tmp_path):
    path = art(tmp_path / "art.tgz", THREE[:1])
    with pytest.raises(DataError, match=f"{THREE[1].name}, {THREE[2].name}"):
        load_sprites(path, THREE)


def test_a_transparent_sprite_is_refused(tmp_path):
    path = archive(tmp_path / "art.tgz", {THREE[0].asset: webp((0, 0, 0), None)})
    with pytest.raises(DataError, match="transparent"):
        load_sprites(path, THREE[:1])


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("PARFOCAL_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("PARFOCAL_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "parfocal"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "parfocal"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and a PATH without npm."""
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setenv("PARFOCAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a shell script called `npm` on the PATH; `$5` is the folder it should pack into."""
    script = tmp_path / "bin" / "npm"
    script.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/calls"\n{body}\n', encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")


def kept(cache: Path) -> list[Path]:
    """What is left in the cache."""
    return sorted(cache.rglob("*")) if cache.exists() else []


def test_without_npm_it_says_what_to_do(cache):
    with pytest.raises(DataError, match=r"npm.*not installed.*Node\.js") as caught:
        load_sprites()
    assert str(cache) in str(caught.value)
    assert kept(cache) == []


def test_npm_that_fails_is_quoted(cache, tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "echo E404 no such package >&2; exit 1")
    with pytest.raises(DataError, match="E404 no such package"):
        fetch_art()
    assert kept(cache) == []


def test_npm_that_writes_nothing_is_an_error(cache, tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "exit 0")
    with pytest.raises(DataError, match="no archive was written"):
        fetch_art()


def test_wrong_checksum_is_refused_and_not_kept(cache, tmp_path, monkeypatch):
    art(tmp_path / "art.tgz")
    fake_npm(tmp_path, monkeypatch, f'cp "{tmp_path}/art.tgz" "$5/fluent.tgz"')
    digest = hashlib.sha1((tmp_path / "art.tgz").read_bytes(), usedforsecurity=False).hexdigest()
    with pytest.raises(DataError, match=f"sha1 {digest}, expected {sprites.ART_SHA1}"):
        fetch_art()
    assert kept(cache) == []


def test_right_checksum_is_kept_and_not_fetched_again(cache, tmp_path, monkeypatch):
    art(tmp_path / "art.tgz")
    data = (tmp_path / "art.tgz").read_bytes()
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(sprites, "ART_SHA1", digest)
    fake_npm(tmp_path, monkeypatch, f'cp "{tmp_path}/art.tgz" "$5/fluent.tgz"')
    path = fetch_art()
    assert kept(cache) == [path]
    assert path.read_bytes() == data
    assert fetch_art() == path
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert len(calls) == 1
    assert f"{sprites.ART_PACKAGE}@{sprites.ART_VERSION}" in calls[0]
    assert load_sprites(kinds=THREE).kinds == THREE


def test_toy_bank_has_every_kind(toy_bank: SpriteBank):
    assert toy_bank.kinds == KINDS
    assert {len(stack) for stack in toy_bank.mips} == {len(MIP_SIDES)}
    for stack in toy_bank.mips:
        assert [max(picture.size) for picture in stack] == list(MIP_SIDES)
