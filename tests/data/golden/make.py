"""Run OpenTSLM's own code on tiny weights and keep what it computes.

    OPENTSLM=/path/to/OpenTSLM/src python tests/data/golden/make.py

needs torch, transformers, peft, datasets and requests. Writes, beside itself: two tokenizers (`llama/`, `gemma/`),
`prompts.json` and `prompts.npz` (what the data set classes make of a row, and some hand-made prompts),
`expected.json` and `expected.npz` (lengths, embeddings, logits, losses, and their origin).
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
SOURCE = Path(os.environ["OPENTSLM"])
sys.path[:0] = [str(SOURCE), str(HERE.parents[1])]
# These packages' __init__ import Flamingo and WFDB, which are not needed here.
for package in ("opentslm", "opentslm.model.llm", "opentslm.time_series_datasets.ecg_qa"):
    module = types.ModuleType(package)
    module.__path__ = [str(SOURCE / package.replace(".", "/"))]
    sys.modules[package] = module

import peft  # noqa: E402
import tiny  # noqa: E402
import transformers  # noqa: E402
from opentslm.model.llm.OpenTSLMSP import OpenTSLMSP  # noqa: E402
from opentslm.time_series_datasets.ecg_qa.ECGQACoTQADataset import ECGQACoTQADataset  # noqa: E402
from opentslm.time_series_datasets.har_cot.HARCoTQADataset import HARCoTQADataset  # noqa: E402
from opentslm.time_series_datasets.m4.M4QADataset import M4QADataset  # noqa: E402
from opentslm.time_series_datasets.sleep.SleepEDFCoTQADataset import SleepEDFCoTQADataset  # noqa: E402
from opentslm.time_series_datasets.TSQADataset import TSQADataset  # noqa: E402
from opentslm.time_series_datasets.util import (  # noqa: E402
    extend_time_series_to_match_patch_size_and_aggregate as extend,
)
from safetensors.torch import save_file  # noqa: E402

STAGES = {
    "tsqa": TSQADataset,
    "m4": M4QADataset,
    "har": HARCoTQADataset,
    "sleep": SleepEDFCoTQADataset,
    "ecg": ECGQACoTQADataset,
}
SHORT = ["tsqa", "har", "unequal"]
FORCED = 6  # answer tokens fed after the prompt: BOS and the first of the answer
ROWS = 16  # rows of the embeddings that are kept whole

EDGES = ["one_sample", "empty_pre", "empty_text", "empty_post", "empty_pieces", "no_series", "constant"]

# (base, LoRA rank, side on which the tokenizer pads, cases, cases with a loss)
RUNS: list[tuple[str, int | None, str, list[str], list[str]]] = [
    ("llama", None, "right", [*STAGES, "unequal", *EDGES, "longest"], []),
    ("llama", 4, "right", SHORT, []),
    ("llama", 16, "right", [*STAGES, "unequal", "ecg_full"], ["tsqa"]),
    ("gemma", None, "right", [*STAGES, "unequal", *EDGES], ["har"]),
    ("gemma", 4, "right", SHORT, []),
    ("gemma", 16, "right", [*STAGES, "unequal"], []),
    ("gemma", None, "left", ["har", "unequal", "empty_pre"], []),  # Gemma's default: the original's bug
]


def wave(name: str, length: int, periods: float, decimals: int) -> list[float]:
    """A wavy, noisy series that a row could hold."""
    phase = np.linspace(0, 2 * np.pi * periods, length)
    values = np.sin(phase) + 0.4 * np.cos(3 * phase) + 0.3 * tiny.noise(name, (length,))
    return np.round(values, decimals).tolist()


def rows() -> dict[str, dict]:
    """One row a stage, in the columns of the published data sets, with texts of our own."""
    return {
        "tsqa": {
            "Task": "Classification",
            "Question": " Is the series (A) rising, (B) falling or (C) periodic? \n",
            "Answer": "The answer is (C) periodic.",
            "Series": json.dumps(wave("tsqa", 97, 5, 3)),
        },
        "m4": {
            "id": "D1",
            "series": (1000 + 120 * np.array(wave("m4", 61, 2, 2))).round(1).tolist(),
            "caption": "The series swings twice around a thousand. ",
        },
        "har": {
            "x_axis": wave("har x", 102, 7, 4),
            "y_axis": (9.81 + np.array(wave("har y", 102, 3.5, 4))).round(4).tolist(),
            "z_axis": [-0.25] * 102,  # constant: the floor of the deviation shows
            "label": "walking",
            "rationale": "A steady rhythm on two axes suggests steps.\nAnswer: walking",
        },
        "sleep": {
            "time_series": [(30 * np.array(wave("sleep", 1500, 40, 3))).round(2).tolist()[:1500]],
            "label": "Non-REM stage 2",
            "rationale": "Slow waves of small height. Answer: Non-REM stage 2",
        },
        "ecg": {
            "question": "Does this ECG show any abnormal rhythm?",
            "answer": ["yes"],
            "template_id": 1,
            "question_type": "single-verify",
            "clinical_contexts": ["70-year-old, recorded at rest, signal with some baseline drift."],
            "ecg_id": [1],
            "ecg_paths": ["short.dat"],
            "rationale": "The distance between beats changes. Answer: yes",
        },
    }


def ecg_signal(name: str, length: int) -> np.ndarray:
    """Twelve leads in mV `[length, 12]`, in steps of 1 µV; aVL is flat."""
    leads = np.array([wave(f"{name} {lead}", length, length / 80, 3) for lead in range(12)]).T
    leads = (leads * np.linspace(0.2, 1.5, 12) + 0.1).round(3)
    leads[:, 4] = 0.02
    return leads


def stage_samples() -> dict[str, dict]:
    """What the original data set classes make of the rows; the row of `sleep` is flattened as its loader does."""
    ECGQACoTQADataset._template_answers_cache = {1: ["no", "not sure", "yes"]}  # ECG-QA's own
    ECGQACoTQADataset._ecg_data_cache = {
        "short.dat": (ecg_signal("short", 250), "100Hz", "100Hz"),
        "full.dat": (ecg_signal("full", 5000), "500Hz", "100Hz"),
    }
    samples = {}
    data = rows()
    data["sleep"] = data["sleep"] | {"time_series": data["sleep"]["time_series"][0]}
    data["ecg_full"] = data["ecg"] | {"ecg_paths": ["full.dat"]}
    for name, row in data.items():
        dataset = object.__new__(STAGES[name.removesuffix("_full")])
        dataset.EOS_TOKEN = ""
        sample = dataset._format_sample(row)
        keys = ("pre_prompt", "time_series_text", "time_series", "post_prompt", "answer")
        samples[name] = {key: sample[key] for key in keys}
    return samples


def hand_made() -> dict[str, dict]:
    """Prompts that no data set holds: the edges."""

    def sample(pre: str, series: list[tuple[str, list[float]]], post: str) -> dict:
        texts, values = [text for text, _ in series], [np.array(value) for _, value in series]
        sample = {"pre_prompt": pre, "time_series_text": texts, "time_series": values, "post_prompt": post}
        return sample | {"answer": "It rises, then falls."}

    one, two = wave("one", 30, 2, 3), wave("two", 17, 1, 3)
    return {
        "unequal": sample(
            " Three series – naïve text, 30 µV ☃\n\n  indented",
            [("First:", one[:5]), (" the second, longer: ", one), ("Third:", two)],
            "What do they share? ",
        ),
        "one_sample": sample("A single sample.", [("Here:", [1.5])], "Answer:"),
        "empty_pre": sample("", [("A series:", two)], "Describe it."),
        "empty_text": sample("A series follows.", [("", two)], "Describe it."),
        "empty_post": sample("Describe the series.", [("A series:", two)], ""),
        "empty_pieces": sample("", [("", two), ("", two[:4])], ""),
        "no_series": sample("There is no series here.", [], "Say something."),
        "constant": sample("A flat line:", [("all zero", [0.0] * 23)], "Describe it."),
        "longest": sample("As long as it gets.", [("Long:", wave("longest", 4095, 50, 2))], "Describe it."),
    }


def make_tokenizers(texts: list[str]) -> None:
    """Train the two tiny tokenizers and write them as Hugging Face folders."""
    plain = [text.replace("☃", "").replace("µ", "").replace("ï", "") for text in texts]

    llama = tokenizers.Tokenizer(models.BPE())
    split = (  # Llama 3's
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    llama.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    llama.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=tiny.VOCAB - 2, initial_alphabet=alphabet, show_progress=False)
    llama.train_from_iterator(plain, trainer)
    llama.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    bos = ("<|begin_of_text|>", tiny.VOCAB - 2)
    llama.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos]),
        ]
    )
    write_tokenizer("llama", llama, bos_token=bos[0], eos_token="<|end_of_text|>")

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    lowest = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    learnt = tokenizers.Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Replace(" ", "▁")
    learnt.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    words = [piece for text in plain for piece in text.replace(" ", " ▁").split(" ")]  # or merges span sentences
    learnt.train_from_iterator(words, trainers.BpeTrainer(vocab_size=tiny.VOCAB - len(lowest), show_progress=False))
    bpe = json.loads(learnt.to_str())["model"]
    pieces = lowest + sorted(bpe["vocab"], key=bpe["vocab"].get)
    gemma = tokenizers.Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)},
            [tuple(merge) for merge in bpe["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    gemma.normalizer = normalizers.Replace(" ", "▁")
    gemma.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    gemma.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    gemma.add_special_tokens(special)
    gemma.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    write_tokenizer("gemma", gemma, padding_side="left", **names)


def write_tokenizer(kind: str, tokenizer: tokenizers.Tokenizer, **settings: str) -> None:
    assert tokenizer.get_vocab_size() == tiny.VOCAB, (kind, tokenizer.get_vocab_size())
    folder = HERE / kind
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
        **settings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def original(kind: str, rank: int | None) -> OpenTSLMSP:
    """OpenTSLM's own model on the tiny weights: loaded in bfloat16 as it does, then widened to float32."""
    config = tiny.TEXT_CONFIGS[kind]
    with tempfile.TemporaryDirectory() as folder:
        for file in (HERE / kind).iterdir():
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        (Path(folder) / "config.json").write_text(json.dumps(config))
        weights = {name: torch.tensor(value).bfloat16() for name, value in tiny.base_weights(kind).items()}
        save_file(weights, str(Path(folder) / "model.safetensors"), metadata={"format": "pt"})
        model = OpenTSLMSP(folder, device="cpu")
    state = tiny.checkpoint(kind, rank)

    def tensors(arrays: dict) -> dict:
        return {name: torch.tensor(array) for name, array in arrays.items()}

    model.encoder.load_state_dict(tensors(state["encoder_state"]))
    model.projector.load_state_dict(tensors(state["projector_state"]))
    if rank:
        model.enable_lora(lora_r=rank, lora_alpha=int(tiny.LORA_ALPHA[rank]))
        saved = state | {"lora_state": tensors(state["lora_state"])}
        assert model.load_lora_state_from_checkpoint(saved) == len(state["lora_state"])
    model = model.float().eval()
    for name, value in tiny.base_weights(kind).items():
        name = name if not rank else f"base_model.model.{name}"
        parameters = dict(model.llm.named_parameters())
        found = parameters.get(name, parameters.get(name.replace("_proj.", "_proj.base_layer.")))
        assert torch.equal(found, torch.tensor(value)), name
    if kind == "gemma":  # in bfloat16 the scale is rounded where it is used; widening must not undo that
        scale = model.llm.get_input_embeddings().embed_scale
        scale.copy_(scale.bfloat16().float())
        assert float(scale) == 8.5, scale
    return model


def run(model: OpenTSLMSP, sample: dict, with_loss: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Lengths, ids and loss for the JSON; embeddings and logits for the NPZ."""
    batch = [dict(sample)]
    if sample["time_series"]:
        extend(batch)
    with torch.no_grad():
        prompt, mask = model.pad_and_apply_batch(batch)
        if model.tokenizer.padding_side == "right":
            assert mask.all()
        ids = model.tokenizer(sample["answer"]).input_ids[:FORCED]
        forced = model.llm.get_input_embeddings()(torch.tensor([ids]))
        embeddings = torch.cat([prompt, forced], 1)
        attention = torch.cat([mask, torch.ones(1, len(ids), dtype=mask.dtype)], 1)
        logits = model.llm(inputs_embeds=embeddings, attention_mask=attention).logits[0, -len(ids) - 1 :]
    kept = np.linspace(0, prompt.shape[1] - 1, ROWS).astype(int)
    facts = {"length": prompt.shape[1], "ids": ids}
    if with_loss:
        answer = sample["answer"] + model.tokenizer.eos_token
        facts |= {"answer": answer, "loss": model.compute_loss([batch[0] | {"answer": answer}]).item()}
    arrays = {
        "logits": logits.numpy(),
        "rows": prompt[0, kept].numpy(),
        "means": prompt[0].mean(1).numpy(),
    }
    return facts, arrays


def main() -> None:
    torch.manual_seed(0)
    samples = stage_samples() | hand_made()
    texts = [text for s in samples.values() for text in (s["pre_prompt"], *s["time_series_text"], s["post_prompt"])]
    make_tokenizers([*texts, *(sample["answer"] for sample in samples.values())])

    prompts, series = {}, {}
    for name, sample in samples.items():
        prompts[name] = {
            "pre": sample["pre_prompt"],
            "texts": sample["time_series_text"],
            "post": sample["post_prompt"],
            "answer": sample["answer"],
        }
        for index, values in enumerate(sample["time_series"]):
            series[f"{name}/{index}"] = np.asarray(values, np.float32)
    series["ecg/microvolts"] = np.rint(ecg_signal("short", 250) * 1000).astype(np.int16)  # of the row
    (HERE / "prompts.json").write_text(
        json.dumps({"rows": rows(), "prompts": prompts}, ensure_ascii=False, indent=1) + "\n"
    )
    np.savez_compressed(HERE / "prompts.npz", **series)

    expected, arrays = [], {}
    for kind, rank, side, cases, losses in RUNS:
        model = original(kind, rank)
        model.tokenizer.padding_side = side
        for case in cases:
            key = f"{kind}-{rank or 'base'}-{side}/{case}"
            facts, found = run(model, samples[case], case in losses)
            expected.append({"key": key, "kind": kind, "lora": rank, "padding": side, "case": case} | facts)
            arrays[f"{key}/logits"] = found["logits"]
            if rank is None and case not in ("sleep", "longest"):  # adapters don't touch the embeddings
                arrays[f"{key}/rows"], arrays[f"{key}/means"] = found["rows"], found["means"]
            print(key, facts["length"], float(found["logits"].std()), facts.get("loss", ""))
    git = ["git", "-C", str(SOURCE), "rev-parse", "HEAD"]
    origin = {
        "what": "OpenTSLM's own OpenTSLMSP in float32, base weights widened from bfloat16; made by make.py",
        "opentslm": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in expected)
    (HERE / "expected.json").write_text(
        f'{{"origin": {json.dumps(origin, indent=1)},\n"expected": [\n{lines}\n]}}\n'
    )
    np.savez_compressed(HERE / "expected.npz", **arrays)


if __name__ == "__main__":
    main()
