"""Makes the checkpoints and logits of this folder with the real torch, PEFT and transformers. Tests only read them.

Made with torch 2.13.0, peft 0.21.2, transformers 5.24.0, numpy 2:

    PYTHONPATH=.:tests python tests/data/people/make.py
"""

import argparse
import dataclasses
import datetime
import enum
import pathlib
import random
import types
import uuid
import warnings
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
import transformers
from base_settings import FORCED, HONOURED, PIECES
from peft import LoraConfig, get_peft_model

HERE = Path(__file__).parent


def untied_head() -> np.ndarray:
    return (tiny.noise("lm_head.weight", (tiny.VOCAB, 64)) / 8).astype(np.float32)


@torch.inference_mode()
def logits(kind: str, change: dict[str, Any], head: np.ndarray | None = None) -> np.ndarray:
    """After the forced tokens, the last position's logits: float32 `[V]`."""
    config = {key: value for key, value in (tiny.TEXT_CONFIGS[kind] | change).items() if value is not None}
    config |= {"torch_dtype": "float32"}
    kinds = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "gemma": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    }
    settings = kinds[kind][0].from_dict(config)
    settings.tie_word_embeddings = head is None
    settings._attn_implementation = "eager"
    weights = {name: torch.from_numpy(value) for name, value in tiny.base_weights(kind).items()}
    if head is not None:
        weights["lm_head.weight"] = torch.from_numpy(head)
    model = kinds[kind][1].from_pretrained(None, config=settings, state_dict=weights, dtype=torch.float32).eval()
    if kind == "gemma":  # as when it was trained, in bfloat16
        table = model.model.embed_tokens
        table.embed_scale = table.embed_scale.to(torch.bfloat16).to(torch.float32)
    tokenizer = tiny.tokenizer(kind)
    ids = [token for piece in PIECES for token in tokenizer.encode(piece)] + FORCED
    return model(torch.tensor([ids])).logits[0, -1].numpy()


TINY = {
    "model_type": "llama", "vocab_size": 384, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 512,
}  # fmt: skip
"""The base LLM of the adapters below; its weights are `tiny.noise` of their names, over 4."""


def base_weights(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.data = torch.from_numpy((tiny.noise(name, tuple(parameter.shape)) / 4).astype(np.float32))


def parts() -> dict[str, Any]:
    """A small encoder and projector, under OpenTSLM's names."""
    from mlx_tslm.conversion import keymap
    from mlx_tslm.models.config import EncoderConfig

    sizes = EncoderConfig(hidden_size=8, num_hidden_layers=1, intermediate_size=8, max_patches=8)
    shapes = {"encoder_state": keymap.encoder_shapes(sizes), "projector_state": keymap.projector_shapes(8, 16)}
    return {
        part: OrderedDict(
            (name, torch.from_numpy(tiny.noise(f"{part}.{name}", shape).astype(np.float32)))
            for name, shape in names.items()
        )
        for part, names in shapes.items()
    }


def adapted(file: str, adapter: str = "default", config: Any = None, rank: int = 4, **options: Any) -> np.ndarray:
    """Save a checkpoint with PEFT's adapters, and return what PEFT's own merge makes of layer 1's q_proj."""
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_dict(dict(TINY)))
    base_weights(model)
    settings = {"r": rank, "lora_alpha": 3 * rank, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    lora = LoraConfig(**settings | options)
    peft = get_peft_model(model, lora, adapter_name=adapter)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data += torch.from_numpy(tiny.noise(name, tuple(parameter.shape)).astype(np.float32)) / 10
    state = {name: value for name, value in peft.state_dict().items() if "lora_" in name}
    saved = peft.peft_config if config is None else config(lora)
    content = parts() | {"lora_enabled": True, "lora_state": state, "lora_config": saved}
    if saved == "none":
        del content["lora_config"]
    torch.save(content, HERE / file)
    return peft.merge_and_unload().state_dict()["model.layers.1.self_attn.q_proj.weight"].numpy()


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Settings:
    rate: float = 1e-3
    where: pathlib.Path = pathlib.Path("runs/1")
    colour: Colour = Colour.RED


class Bag(dict):
    """As the configuration classes of several libraries are."""


def company() -> dict[str, Any]:
    """What lies in people's training files beside the weights."""
    seeded = np.random.RandomState(0)
    return {
        "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("a/b")),
        "namespace": types.SimpleNamespace(a=1),
        "path": pathlib.Path("a/b"),
        "settings": Settings(),
        "bag": Bag(a=1),
        "date": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "day": datetime.date(2026, 1, 2),
        "took": datetime.timedelta(seconds=5),
        "default": defaultdict(list, a=[1]),
        "counts": Counter("aab"),
        "last": deque([1, 2], maxlen=4),
        "bytes": bytearray(b"abc"),
        "slice": slice(1, 2, None),
        "range": range(3),
        "complex": 1 + 2j,
        "array": np.arange(6).reshape(2, 3),
        "text": np.str_("ä"),
        "date64": np.datetime64("2026-01-02"),
        "scalar": np.float64(0.25),
        "states": (seeded.get_state(), seeded, np.random.default_rng(0), random.getstate(), torch.get_rng_state()),
        "by_step": {(1, "loss"): 0.5, (2, ("a", 3)): 1, Colour.RED: 2, pathlib.Path("a"): 3},
        "id": uuid.UUID(int=1),
        "function": torch.nn.functional.gelu,
        "kind": Settings,
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "meta": torch.empty(5, device="meta"),
        "expanded": torch.zeros(1).expand(1 << 40),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    values = {name: logits(*what) for name, what in HONOURED.items()}
    for told in (None, True):  # what is stored decides, whatever the config says
        values[f"own head, tied {told}"] = logits("llama", {"tie_word_embeddings": told}, untied_head())
    np.savez_compressed(HERE / "logits.npz", **values)
    merged = {
        "pattern": adapted("pattern.pt", target_modules=r".*layers\.(0|1)\.self_attn\.[qv]_proj"),
        "layers": adapted("layers.pt", layers_to_transform=[1, 2]),
        "all_linear": adapted("all_linear.pt", rank=2, target_modules="all-linear"),
        "named": adapted("named.pt", adapter="har"),
        "two_configs": adapted("two_configs.pt", config=lambda lora: {"default": lora, "other": LoraConfig(r=2)}),
        "keywords": adapted(
            "keywords.pt", config=lambda _: {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "v_proj"]}
        ),
        "to_dict": adapted("to_dict.pt", config=lambda lora: {"default": lora.to_dict()}),
        "silent16": adapted("silent16.pt", rank=16, lora_alpha=32, config=lambda _: "none"),
        "gaussian": adapted("gaussian.pt", init_lora_weights="gaussian"),
        "orthogonal": adapted("orthogonal.pt", init_lora_weights="orthogonal"),
        "zero": adapted("zero.pt", init_lora_weights=False),
    }
    for start in ("pissa", "pissa_niter_2", "olora"):
        adapted(f"{start}.pt", init_lora_weights=start)
    np.savez_compressed(HERE / "merged.npz", **merged)
    torch.save(parts() | company(), HERE / "company.pt")
    torch.save(parts() | company(), HERE / "company5.pt", pickle_protocol=5)
    encoder, projector = parts().values()
    inner = {f"encoder.{name}": value for name, value in encoder.items()}
    inner |= {f"projector.{name}": value for name, value in projector.items()}
    torch.save(
        {"state_dict": {f"module._orig_mod.{name}": value for name, value in inner.items()}}, HERE / "flat.pt"
    )


if __name__ == "__main__":
    main()
