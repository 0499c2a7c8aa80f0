"""OpenTSLM's models in PyTorch: what they have in common, and the soft-prompt model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.config import ModelConfig
from mlx_tslm.stages.base import Prompt
from mlx_tslm.torch_backend.decoding import Fed, PathDecoder, TorchPrompt, TorchRows, fork
from mlx_tslm.torch_backend.layers import Encoder, Projector, build_language_model, misfit

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


def best_device() -> str:
    """ "mps" where there is one, else "cuda", else "cpu"."""
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if torch.cuda.is_available() else "cpu"


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors of a converted folder, on the CPU."""
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


class TorchModel(BaseModel):
    """The model in PyTorch.

    Args:
        config: sizes and provenance.
        tokenizer, stage: as in `SoftPromptModel`.
        weights: under the names of a converted folder.
        dtype: of the LLM ("float32", "bfloat16" …), or None for that of its weights.
        device: where to compute; the best there is where None.
        cached: keep keys and values, or read everything again for every token.

    Raises:
        TSLMError: the model is quantized, of an unknown kind, or the weights do not fit.
    """

    encoder: Encoder
    projector: Projector

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Any,
        stage: Stage | None,
        weights: Mapping[str, Tensor],
        dtype: str | None = None,
        device: str | None = None,
        cached: bool = True,
    ) -> None:
        if config.quantization:
            raise TSLMError("the PyTorch backend reads no quantized model; convert it again without -q")
        self.config, self.tokenizer, self.stage, self.cached = config, tokenizer, stage, cached
        self.device = torch.device(device or best_device())
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "language_model": {}}
        for name, tensor in weights.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        self.language_model = build_language_model(config, parts["language_model"], dtype).to(self.device).eval()
        hidden, rows = self.language_model.config.hidden_size, self.language_model.config.vocab_size
        self.nameless = torch.zeros(rows, dtype=torch.bool, device=self.device)
        patches = parts["encoder"]["patch_embed.weight"]
        parts["encoder"]["patch_embed.weight"] = patches.transpose(1, 2)  # MLX's layout is [out, kernel, in]
        for name, module in {"encoder": Encoder(config.encoder_config), **self.parts(hidden)}.items():
            try:
                module.load_state_dict(parts.get(name, {}))
            except RuntimeError as error:
                raise misfit(str(error).splitlines()[-1].strip()) from None
            setattr(self, name, module.to(self.device).eval())

    def know_tokens(self) -> None:
        for token in set(range(len(self.nameless))) - self.token_ids:
            self.nameless[token] = True

    def parts(self, hidden: int) -> dict[str, nn.Module]:
        """What stands between the encoder and the language model, which is `hidden` wide, without weights."""
        return {"projector": Projector(self.config.encoder_config.hidden_size, hidden)}

    @property
    def adapter(self) -> nn.Module:
        """The part whose weights tell one training from another."""
        return self.projector

    @torch.inference_mode()
    def embed(self, prompt: Prompt) -> Fed:
        """Tokenize, encode and embed a prompt."""
        ids = self.tokenize(prompt)
        patches: Sequence[Tensor] = ()
        if prompt.series:
            series = torch.from_numpy(self.pad_series(prompt.series)).to(self.device)
            patches = tuple(self.projector(self.encoder(series)).to(self.language_model.dtype))
        parts = []
        for index, piece in enumerate(ids):
            parts.append(self.embed_tokens(piece))
            if 0 < index <= len(patches):
                parts.append(patches[index - 1])
        return Fed(torch.cat(parts)[None], self.visible(ids, patches))

    def embedding_scale(self, width: int) -> float:
        """What Gemma's text embeddings are multiplied by: √hidden, rounded to bfloat16 as when it was trained."""
        return float(torch.tensor(width**0.5, dtype=torch.bfloat16))

    def embed_tokens(self, tokens: Sequence[int]) -> Tensor:
        """Text embeddings `[T, H]`, Gemma's scaled."""
        table = self.language_model.model.embed_tokens.weight
        embeddings = F.embedding(torch.tensor(tokens, dtype=torch.long, device=self.device), table)
        if self.config.text_config["model_type"] == "gemma3_text":
            embeddings = embeddings * torch.tensor(self.embedding_scale(table.shape[1]), dtype=table.dtype)
        return embeddings

    @torch.inference_mode()
    def run(self, embeddings: Tensor, cache: DynamicCache | None, fed: Fed) -> Tensor:
        """Final states `[L, H]` of embeddings `[1, L, H]` of a prompt and behind it, after what `cache` holds."""
        mask, visible = None, fed.visible
        if visible is not None:
            seen = embeddings.shape[1] + (cache.get_seq_length() if cache is not None else 0)
            shown = np.pad(visible, (0, seen - len(visible)), constant_values=True)
            mask = torch.from_numpy(shown)[None].to(self.device)
        output = self.language_model.model(
            inputs_embeds=embeddings, attention_mask=mask, cache=cache, use_cache=cache is not None
        )
        return output.last_hidden_state[0]

    @torch.inference_mode()
    def logits(self, states: Tensor) -> mx.array:
        """Float32 logits `[..., V]` of final states `[..., H]`."""
        values = self.language_model.lm_head(states).float()
        values[..., self.nameless] = -torch.inf
        return mx.array(values.cpu().numpy())

    def score(self, prompt: Prompt, token_ids: Sequence[int]) -> mx.array:
        self.check_tokens(token_ids)
        fed = self.embed(prompt)
        embeddings = torch.cat([fed.embeddings, self.embed_tokens(token_ids)[None]], dim=1)
        return self.logits(self.run(embeddings, None, fed)[-len(token_ids) - 1 :])

    def prefill(
        self, prompt: Prompt, room: int = 0, opening: Sequence[int] = (), bos: bool | None = None
    ) -> TorchPrompt:
        self.check_tokens(opening)
        fed = self.embed(prompt)
        embeddings = fed.embeddings
        self.check_room(embeddings.shape[1], room, self.language_model.config.max_position_embeddings)
        cache = DynamicCache(config=self.language_model.config) if self.cached else None
        state = self.run(embeddings, cache, fed)[-1:]
        first = self.most_probable(self.logits(state))
        if first == self.tokenizer.bos_token_id if bos is None else bos:
            opening = [self.tokenizer.bos_token_id, *opening]
        read = TorchPrompt(replace(fed, embeddings=embeddings), state, cache)
        return self.read_on(read, opening)[1] if opening else read

    def read_on(self, read: TorchPrompt, tokens: Sequence[int]) -> tuple[mx.array, TorchPrompt]:
        if not len(tokens):
            return self.logits(read.state), read
        self.check_tokens(tokens)
        more = self.embed_tokens(tokens)[None]
        embeddings = torch.cat([read.embeddings, more], dim=1)
        cache = None if read.cache is None else fork(read.cache)
        states = self.run(embeddings if cache is None else more, cache, read.fed)[-len(tokens) :]
        logits = self.logits(torch.cat([read.state, states]))
        return logits, TorchPrompt(replace(read.fed, embeddings=embeddings), states[-1:], cache)

    def decoder(self, read: TorchPrompt) -> PathDecoder:
        return PathDecoder(self, read)

    def rows(self) -> TorchRows:
        return TorchRows(self)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"torch" if self.cached else b"torch-uncached")
        for part in (self.adapter, self.language_model.model.layers[-1].self_attn):
            for name, tensor in part.state_dict().items():
                digest.update(name.encode() + tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def peak_memory(self) -> int:
        """Of the CUDA device; what Metal's driver holds now; on the CPU, of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory()
        from mlx_tslm.system.memory import peak_resident

        return peak_resident()
