"""A small byte-level BPE tokenizer in Llama 3's manner, trained on the synthetic curriculum's own words."""

from collections.abc import Iterable
from typing import Any

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
# Words with the space before them, digits one by one, runs of punctuation, white space.
_PIECES = r" ?\p{L}+| ?\d| ?[^\s\p{L}\d]+|\s+"


def train_tokenizer(corpus: Iterable[str], vocab_size: int) -> Any:
    """Train on `corpus`; returns a `transformers.PreTrainedTokenizerFast` that puts BOS before what it encodes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )
