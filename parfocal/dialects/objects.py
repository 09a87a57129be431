"""Object images in the text: `<object1>` is the place of picture 1 of the conversation.

The mark is written by our own dialects and never reaches a tokenizer: the processor replaces it by
the placeholders of the picture's tokens.
"""

from __future__ import annotations

import re

# Source: TinyGroundingGPT, sections 3.2 and 3.3 (`<object>` in prompts and questions); the number
# says which one.
OBJECT_MARK = re.compile(r"<object([1-9][0-9]*)>")


def object_mark(image: int) -> str:
    """The mark of picture `image`.

    >>> object_mark(2)
    '<object2>'
    """
    return f"<object{image}>"
