"""Prompt templates of MG-LLaVA's language models: a question, the picture inside it, an answer.

The picture stands inside the first question: what comes before it is the template's `opening`, and
`first` is what stands between it and the words. Every piece is tokenised on its own.

Source: official xtuner/utils/templates.py and the training and evaluation code around it; no system
prompt is ever given.
Deviates: no.
"""

from __future__ import annotations

from parfocal.models.processing import PromptTemplate

VICUNA = PromptTemplate(
    bos="turns",
    opening="USER: ",
    first="\n",
    user="USER: ",
    assistant=" ASSISTANT:",
    end="</s>",
    separator="\n",
    packing="sequence",
)
LLAMA3_CHAT = PromptTemplate(
    bos="once",
    opening="<|start_header_id|>user<|end_header_id|>\n\n",
    first="\n",
    user="<|start_header_id|>user<|end_header_id|>\n\n",
    turn_end="<|eot_id|>",
    assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
    end="<|eot_id|>",
    packing="sequence",
)
PHI3_CHAT = PromptTemplate(
    bos="once",
    opening="<|user|>",
    first="\n",
    user="<|user|>",
    turn_end="<|end|>\n",
    assistant="<|assistant|>\n",
    end="<|end|>",
    separator="\n",
    packing="sequence",
)
QWEN_CHAT = PromptTemplate(
    bos="once",
    opening="<|im_start|>user\n",
    first="\n",
    user="<|im_start|>user\n",
    turn_end="<|im_end|>\n",
    assistant="<|im_start|>assistant\n",
    end="<|im_end|>",
    separator="\n",
    stops=("<|endoftext|>",),
    packing="sequence",
)

# by the official names
TEMPLATES: dict[str, PromptTemplate] = {
    "vicuna": VICUNA,
    "llama3_chat": LLAMA3_CHAT,
    "phi3_chat": PHI3_CHAT,
    "qwen_chat": QWEN_CHAT,
}

# preset -> template
MG_LLAVA_TEMPLATES: dict[str, PromptTemplate] = {
    "mg_llava_phi3_3_8b": PHI3_CHAT,
    "mg_llava_vicuna_7b": VICUNA,
    "mg_llava_vicuna_13b": VICUNA,
    "mg_llava_llama3_8b": LLAMA3_CHAT,
    "mg_llava_yi1_5_34b": QWEN_CHAT,
}
