"""Prompt templates of language models: a question, the picture inside it, an answer.

The picture stands inside the first question: what comes before it is the template's `opening`, and
`first` is what stands between it and the words. Every piece is tokenised on its own.

Source: of MG-LLaVA, official xtuner/utils/templates.py and the training and evaluation code around
it, where no system prompt is ever given; of TinyGroundingGPT, which names none, the chat templates
of the Qwen2 and Qwen2.5 tokenizers with their default system prompts.
Deviates: no.
"""

from __future__ import annotations

from dataclasses import replace

from parfocal.models.settings import PromptTemplate

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
# as QWEN_CHAT, under a system prompt
QWEN2_CHAT = replace(
    QWEN_CHAT,
    bos="none",
    opening="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
)
QWEN2_5_CHAT = replace(
    QWEN_CHAT,
    bos="none",
    opening=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n"
    ),
)

# by the official names
TEMPLATES: dict[str, PromptTemplate] = {
    "vicuna": VICUNA,
    "llama3_chat": LLAMA3_CHAT,
    "phi3_chat": PHI3_CHAT,
    "qwen_chat": QWEN_CHAT,
    "qwen2_chat": QWEN2_CHAT,
    "qwen2_5_chat": QWEN2_5_CHAT,
}

# preset -> template
MG_LLAVA_TEMPLATES: dict[str, PromptTemplate] = {
    "mg_llava_phi3_3_8b": PHI3_CHAT,
    "mg_llava_vicuna_7b": VICUNA,
    "mg_llava_vicuna_13b": VICUNA,
    "mg_llava_llama3_8b": LLAMA3_CHAT,
    "mg_llava_yi1_5_34b": QWEN_CHAT,
}
TINY_GROUNDING_GPT_TEMPLATES: dict[str, PromptTemplate] = {
    "tiny_grounding_gpt_1_5b": QWEN2_5_CHAT,
    "tiny_grounding_gpt_3b": QWEN2_5_CHAT,
    "tiny_grounding_gpt_7b": QWEN2_5_CHAT,
    "tiny_grounding_gpt_qwen2_1_5b": QWEN2_CHAT,
}
PRESET_TEMPLATES: dict[str, PromptTemplate] = {
    **MG_LLAVA_TEMPLATES,
    **TINY_GROUNDING_GPT_TEMPLATES,
}
