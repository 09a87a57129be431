"""Scenes: seeded pictures composed of drawn objects, whose boxes and names are known.

`catalogue` lists the kinds, `sprites` holds their pictures, `backgrounds` and `compose` paint
scenes, `expressions` and `turns` say things about them, `heldout` writes the bundled benchmark.
"""
