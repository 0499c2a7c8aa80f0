"""Makes the checkpoints of this folder with the real torch, PEFT and OpenTSLM. Tests only read the results.

Made with torch 2.13.0, peft 0.21.2, transformers 5.23.0, OpenTSLM 2968f4b:

    PYTHONPATH=path/to/opentslm/src python tests/data/checkpoints/make.py

With a file's name it checks instead that the original loader takes a file (as our writer made it):

    PYTHONPATH=path/to/opentslm/src python tests/data/checkpoints/make.py check FILE.pt BASE_FOLDER
"""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

for name in ("open_flamingo", "open_flamingo.src", "open_flamingo.src.flamingo_lm", "open_flamingo.src.utils"):
    sys.modules.setdefault(name, MagicMock())  # imported by opentslm, not needed for the soft-prompt model

from opentslm.model.encoder.TransformerCNNEncoder import TransformerCNNEncoder  # noqa: E402
from opentslm.model.llm.OpenTSLMSP import OpenTSLMSP  # noqa: E402
from opentslm.model.projector.MLPProjector import MLPProjector  # noqa: E402
from peft import LoraConfig, TaskType, get_peft_model  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, get_linear_schedule_with_warmup  # noqa: E402

HERE = Path(__file__).parent
TARGETS = ["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def stack(layers: int = 1, patches: int = 12) -> tuple[torch.nn.Module, torch.nn.Module, LlamaForCausalLM]:
    encoder = TransformerCNNEncoder(
        output_dim=16, transformer_input_dim=16, num_layers=2, ff_dim=24, max_patches=patches
    )
    projector = MLPProjector(16, 32, "cpu")
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    llm = LlamaForCausalLM(config)
    for parameter in llm.parameters():
        parameter.requires_grad = False
    return encoder, projector, llm


def checkpoint(encoder: torch.nn.Module, projector: torch.nn.Module, llm: torch.nn.Module) -> dict:
    """The dictionary that `OpenTSLMSP.store_to_file` saves."""
    holder = OpenTSLMSP.__new__(OpenTSLMSP)
    torch.nn.Module.__init__(holder)
    holder.encoder, holder.projector, holder.llm = encoder, projector, llm
    holder.lora_enabled = hasattr(llm, "peft_config")
    state = {"encoder_state": encoder.state_dict(), "projector_state": projector.state_dict()}
    holder.save_lora_state_to_checkpoint(state)
    return state


def with_lora(llm: torch.nn.Module, rank: int = 4, **options: object) -> torch.nn.Module:
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=TARGETS, lora_dropout=0.0, bias="none",
        task_type=TaskType.CAUSAL_LM, **options,
    )  # fmt: skip
    model = get_peft_model(llm, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # they start at zero, which would hide a mistake
    return model


def main() -> None:
    torch.manual_seed(0)
    encoder, projector, llm = stack()
    torch.save(checkpoint(encoder, projector, llm), HERE / "sp_plain.pt")

    encoder, projector, llm = stack(layers=2, patches=20)
    base = {name: value.clone().numpy() for name, value in llm.state_dict().items()}
    model = with_lora(llm)
    torch.save(checkpoint(encoder, projector, model), HERE / "sp_lora.pt")
    merged = model.merge_and_unload().state_dict()
    kept = ["model.layers.0.self_attn.k_proj.weight", "model.layers.1.mlp.down_proj.weight"]
    golden = {f"base.{name}": base[name] for name in kept}
    golden |= {f"merged.{name}": merged[name].numpy() for name in kept}
    golden["patch_embed"] = encoder.patch_embed.weight.detach().numpy()
    golden["projector_bias"] = projector.projector[1].bias.detach().numpy()
    np.savez_compressed(HERE / "sp_lora.npz", **golden)

    # A training checkpoint: optimizer and scheduler state, bfloat16 adapters, rank-stabilised scale.
    encoder, projector, llm = stack()
    model = with_lora(llm, rank=2, use_rslora=True)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(torch.bfloat16)
    trained = [*projector.parameters()]
    optimizer = torch.optim.AdamW([{"params": trained, "lr": 1e-4}])
    scheduler = get_linear_schedule_with_warmup(optimizer, 2, 10)
    projector(torch.ones(1, 16)).sum().backward()
    optimizer.step()
    scheduler.step()
    state = checkpoint(encoder, projector, model)
    state |= {"optimizer_state": optimizer.state_dict(), "scheduler_state": scheduler.state_dict()}
    state |= {"val_loss": np.float64(0.25), "epoch": 3}
    torch.save(state, HERE / "training.pt")

    # Every dtype that torch writes, and every way a tensor lies in its storage.
    names = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    names += ["uint16", "uint32", "uint64", "complex64", "complex128"]
    names += ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
    values = torch.tensor([[0.0, 1.0, 2.0], [4.0, 8.0, 16.0]])
    grid = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "dtypes": {name: values.to(getattr(torch, name)) for name in names},
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "grid": grid,
        "transposed": grid.T,
        "slice": grid[1:3, ::2],
        "column": grid[:, 4],
        "expanded": torch.tensor([[7.0], [8.0]]).expand(2, 3),
        "tied": grid,
        "conjugate": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "negative": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "layout": torch.strided,
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "large": 2**70,
        "list": [None, True, -1, 1.5, "ä", (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ()],
    }
    torch.save(tensors, HERE / "tensors.pt")
    torch.save({"bits": torch.arange(256, dtype=torch.uint8), **{
        name: torch.arange(256, dtype=torch.uint8).view(getattr(torch, name)).to(torch.float32)
        for name in names if name.startswith("float8")
    }}, HERE / "float8.pt")  # fmt: skip

    torch.save({"model_state": {"llm.gate": torch.zeros(1), "model.gate": torch.zeros(1)}}, HERE / "flamingo.pt")
    torch.save({"a": torch.ones(2)}, HERE / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), HERE / "torchscript.pt")


def check(path: str, base: str) -> None:
    model = OpenTSLMSP(llm_id=base, device="cpu")
    if torch.load(path, weights_only=False)["lora_enabled"]:
        config = torch.load(path, weights_only=False)["lora_config"]["default"]
        assert isinstance(config, LoraConfig), type(config)
        print(config)
        model.enable_lora(config.r, config.lora_alpha, target_modules=list(config.target_modules))
    model.load_from_file(path)


if __name__ == "__main__":
    check(*sys.argv[2:]) if sys.argv[1:2] == ["check"] else main()
