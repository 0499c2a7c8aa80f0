"""Run OpenTSLM's and open-flamingo's own code on tiny weights and keep what they compute.

    OPENTSLM=/path/to/OpenTSLM/src python tests/data/golden/make_flamingo.py

needs torch, transformers, open-flamingo 2.0.1, einops and einops-exts (open-flamingo's other requirements are not
needed: `pip install --no-deps`). Takes the prompts that `make.py` has made, and writes `flamingo.json` and
`flamingo.npz` beside itself: lengths, latents, logits, losses, and their origin. `file FOLDER` writes there what
OpenTSLM's two ways of saving write, for the tests of the conversion.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SOURCE = Path(os.environ["OPENTSLM"])
sys.path[:0] = [str(SOURCE), str(HERE.parents[1])]
for package in ("opentslm", "opentslm.model.llm"):  # their __init__ import what is not needed here
    module = types.ModuleType(package)
    module.__path__ = [str(SOURCE / package.replace(".", "/"))]
    sys.modules[package] = module
sys.modules["open_clip"] = MagicMock()  # imported by open-flamingo's factory, which is not used

import tiny  # noqa: E402
import tiny_flamingo  # noqa: E402
from opentslm.model.llm.OpenTSLMFlamingo import OpenTSLMFlamingo  # noqa: E402
from opentslm.time_series_datasets.util import (  # noqa: E402
    extend_time_series_to_match_patch_size_and_aggregate as extend,
)
from safetensors.torch import save_file  # noqa: E402

FORCED = 6  # answer tokens fed after the prompt

CASES = [
    "tsqa", "m4", "har", "sleep", "ecg", "unequal", "one_sample", "empty_pre", "empty_text", "empty_post",
    "empty_pieces", "constant",
]  # fmt: skip
LOSSES = ["tsqa", "har", "empty_pre"]


def original(kind: str) -> OpenTSLMFlamingo:
    """OpenTSLM's own model on the tiny weights, float32 throughout as it is trained."""
    with tempfile.TemporaryDirectory() as folder:
        for file in (HERE / kind).iterdir():
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        (Path(folder) / "config.json").write_text(json.dumps(tiny.TEXT_CONFIGS[kind] | {"torch_dtype": "float32"}))
        weights = {name: torch.tensor(value) for name, value in tiny.base_weights(kind).items()}
        save_file(weights, str(Path(folder) / "model.safetensors"), metadata={"format": "pt"})
        model = OpenTSLMFlamingo(device="cpu", llm_id=folder, cross_attn_every_n_layers=1)
    state = {name: torch.tensor(value) for name, value in tiny_flamingo.original_state(kind).items()}
    model.model.load_state_dict(state, strict=True)
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())
    return model.eval()


def run(model: OpenTSLMFlamingo, sample: dict, with_loss: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Ids, length and loss for the JSON; latents and logits for the NPZ."""
    batch = [dict(sample)]
    extend(batch)
    flamingo = model.model
    with torch.no_grad():
        prompt, images, mask, _ = model.pad_and_apply_batch(batch, include_labels=True)
        assert mask.all()
        bare = model.text_tokenizer(" " + sample["answer"], add_special_tokens=False).input_ids[:FORCED]
        ids = torch.cat([prompt, torch.tensor([bare])], 1)
        logits = flamingo(vision_x=images, lang_x=ids, attention_mask=torch.ones_like(ids)).logits
        logits = logits[0, -len(bare) - 1 :]
        # As its `generate` decodes: the prompt with a cache, then token by token with the media cached.
        greedy = flamingo.generate(
            vision_x=images, lang_x=prompt, attention_mask=mask, max_new_tokens=FORCED, do_sample=False,
            eos_token_id=model.text_tokenizer.eos_token_id, pad_token_id=model.text_tokenizer.pad_token_id,
        )[0, prompt.shape[1] :]  # fmt: skip
        flamingo._encode_vision_x(images)
        latents = flamingo.lang_encoder._get_decoder_layers()[0].vis_x[0, 0]
    facts = {"ids": prompt[0].tolist(), "forced": bare, "greedy": greedy.tolist()}
    if with_loss:
        answer = sample["answer"] + model.get_eos_token()
        with torch.no_grad():
            facts |= {
                "answer": sample["answer"],
                "loss": model.compute_loss([batch[0] | {"answer": answer}]).item(),
            }
    return facts, {"logits": logits.numpy(), "latents": latents.numpy()[::16]}


def samples() -> dict[str, dict]:
    """The prompts that `make.py` stored."""
    stored = json.loads((HERE / "prompts.json").read_text())["prompts"]
    with np.load(HERE / "prompts.npz") as file:
        series = dict(file)
    return {
        case: {
            "pre_prompt": one["pre"],
            "time_series_text": one["texts"],
            "time_series": [series[f"{case}/{index}"] for index in range(len(one["texts"]))],
            "post_prompt": one["post"],
            "answer": one["answer"],
        }
        for case, one in stored.items()
    }


def main() -> None:
    expected, arrays = [], {}
    found = samples()
    for kind in ("llama", "gemma"):
        model = original(kind)
        for case in CASES:
            facts, numbers = run(model, found[case], case in LOSSES)
            expected.append({"key": f"{kind}/{case}", "kind": kind, "case": case} | facts)
            arrays |= {f"{kind}/{case}/{name}": values for name, values in numbers.items()}
            print(kind, case, len(facts["ids"]), float(numbers["logits"].std()), facts.get("loss", ""))
    revision = os.environ.get("OPENTSLM_COMMIT")
    git = ["git", "-C", str(SOURCE), "rev-parse", "HEAD"]
    origin = {
        "what": "OpenTSLM's own OpenTSLMFlamingo in float32; made by make_flamingo.py",
        "opentslm": revision or subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "open-flamingo": importlib.metadata.version("open-flamingo"),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in expected)
    (HERE / "flamingo.json").write_text(
        f'{{"origin": {json.dumps(origin, indent=1)},\n"expected": [\n{lines}\n]}}\n'
    )
    np.savez_compressed(HERE / "flamingo.npz", **arrays)


def write_files(folder: Path) -> None:
    """A file of each of OpenTSLM's two ways of saving, and back: its own names, its own sharing of storages."""
    folder.mkdir(parents=True, exist_ok=True)
    model = original("llama")
    model.store_to_file(str(folder / "llm.pt"))
    torch.save({"model_state": model.state_dict(), "val_loss": 1.25, "epoch": 3}, folder / "model_state.pt")
    print(len(model.state_dict()), "names")


if __name__ == "__main__":
    write_files(Path(sys.argv[2])) if sys.argv[1:2] == ["file"] else main()
