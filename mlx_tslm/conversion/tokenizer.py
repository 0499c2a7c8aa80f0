"""Writing a model's tokenizer into its folder."""

import json
from pathlib import Path
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper


def save(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer's files as transformers does, its config indented."""
    (tokenizer._tokenizer if isinstance(tokenizer, TokenizerWrapper) else tokenizer).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=2, ensure_ascii=False) + "\n")
