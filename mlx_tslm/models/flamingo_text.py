"""How a prompt becomes the text of a Flamingo model, whichever library computes it."""

from typing import Any

from mlx_tslm.models.base import BaseModel
from mlx_tslm.stages.base import Prompt

IMAGE = "<image>"
END_OF_CHUNK = "<|endofchunk|>"
PAD = "<PAD>"


def text(prompt: Prompt) -> str:
    """The prompt as OpenTSLM's Flamingo writes it: a mark for each series, and its text behind it."""
    chunks = "".join(f" {IMAGE} {series.text} {END_OF_CHUNK}" for series in prompt.series)
    return prompt.pre + chunks + (f" {prompt.post}" if prompt.post else "")


def add_special_tokens(tokenizer: Any) -> None:
    """Give a base LLM's Hugging Face tokenizer the marks that the text has, in the original's order."""
    tokenizer.add_special_tokens({"additional_special_tokens": [END_OF_CHUNK, IMAGE]})
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD})


class FlamingoText(BaseModel):
    """The text half of a Flamingo model: one piece, with one BOS."""

    @property
    def image_token_id(self) -> int:
        """The token that stands for a series."""
        return int(self.tokenizer.convert_tokens_to_ids(IMAGE))

    def tokenize(self, prompt: Prompt) -> list[list[int]]:
        """Token ids of the whole prompt, as one piece."""
        ids = list(self.tokenizer.encode(text(prompt)))
        self.check_tokens(ids)
        return [ids]

    def count_positions(self, prompt: Prompt) -> int:
        return len(self.tokenize(prompt)[0])

    def lesson(self, prompt: Prompt, answer: str) -> tuple[list[list[int]], list[int]]:
        """See `BaseModel.lesson`.

        The original tokenizes prompt and answer as one, and counts the prompt without its BOS, so that the prompt's
        last token is a label too.
        """
        ids = list(self.tokenizer.encode(f"{text(prompt)} {answer}"))
        self.check_tokens(ids)
        start = len(self.tokenizer.encode(text(prompt), add_special_tokens=False))
        return [ids[:start]], [*ids[start:], self.end_token_id]
