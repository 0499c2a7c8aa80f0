"""What a base LLM's folder may say: honoured as transformers does it, or refused by name; never ignored.

The logits of `data/people/logits.npz` are transformers' own; `make.py` there says how they were made.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from base_settings import FORCED, HONOURED, PIECES, YARN

import mlx_tslm
from mlx_tslm.cli import main

PEOPLE = Path(__file__).parent / "data" / "people"
PROMPT = mlx_tslm.Prompt(PIECES[0], [], PIECES[1])

Convert = Callable[..., "tuple[int, str]"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny bases and checkpoints."""
    folder = tmp_path_factory.mktemp("bases")
    for kind in ("llama", "gemma"):
        tiny.write_base(kind, folder / kind)
        tiny.write_checkpoint(kind, folder / f"{kind}.pt", max_patches=40)
    return folder


@pytest.fixture
def base(files: Path, tmp_path: Path) -> Callable[..., Path]:
    """A base's folder with some of its config changed; None takes a key away."""

    def changed(kind: str = "llama", **changes: Any) -> Path:
        folder = tmp_path / "base"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(files / kind, folder)
        config = tiny.TEXT_CONFIGS[kind] | changes
        config = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return changed


@pytest.fixture
def convert(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Run `convert` with a base, and return the exit code and what was said."""

    def run(folder: Path, kind: str = "llama", *options: str) -> tuple[int, str]:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        code = main(["convert", str(files / f"{kind}.pt"), "--llm", str(folder), "-o", str(out), *options])
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said
        assert code == 0 or (said.count("error:") == 1 and not out.exists()), said
        return code, " ".join(said.split())

    return run


def last_logits(folder: Path, backend: str = "mlx") -> np.ndarray:
    return np.array(mlx_tslm.load(folder, backend).score(PROMPT, FORCED))[-1]


@pytest.mark.parametrize("name", HONOURED)
def test_settings_are_honoured(name: str, base: Any, convert: Convert, tmp_path: Path) -> None:
    kind, changes = HONOURED[name]
    expected = np.load(PEOPLE / "logits.npz")
    assert convert(base(kind, **changes), kind, "--dtype", "float32")[0] == 0
    np.testing.assert_allclose(last_logits(tmp_path / "out"), expected[name], atol=2e-4)
    if changes and name != "swish":  # and it does make a difference
        assert np.abs(expected[name] - expected[f"plain {kind}"]).max() > 0.01


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *(("llama", {"hidden_act": act}, "hidden_act") for act in ("gelu", "relu", "gelu_new", "relu2")),
    *(("gemma", {"hidden_activation": act}, "hidden_activation") for act in ("silu", "gelu")),
    ("gemma", {"hidden_act": "silu"}, "hidden_act"),
    ("gemma", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("gemma", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma", {"attention_bias": True}, "attention_bias"),
    ("gemma", {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 5}, "layer_types"),
    ("gemma", {"layer_types": ["sliding_attention"] * 6}, "layer_types"),
    ("gemma", {"layer_types": ["linear_attention"] * 7}, "layer_types"),
    ("llama", {"layer_types": ["sliding_attention"] * 3, "sliding_window": 8}, "layer_types"),
    ("llama", {"rope_scaling": YARN | {"truncate": False}}, "truncate"),
    ("llama", {"rope_scaling": YARN | {"factor": 1.0, "attention_factor": 1.5}}, "attention_factor"),
    ("llama", {"rope_scaling": YARN | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("llama", {"rope_scaling": YARN | {"novel_factor": 0.5}}, "novel_factor"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_traditional": True}, "rope_traditional"),
    *(
        ("llama", {"rope_scaling": {"rope_type": kind, "factor": 2.0}}, f"rope_type = '{kind}'")
        for kind in ("dynamic", "longrope", "su", "mrope", "proportional", "axial", "nonsense")
    ),
    ("llama", {"rope_scaling": {"rope_type": "linear"}}, "linear needs factor"),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3 needs low_freq_factor"),
    ("llama", {"rope_scaling": "yarn"}, "rope_scaling"),
    ("llama", {"rope_scaling": [1]}, "rope_scaling"),
    ("gemma", {"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "full_attention and sliding_attention"),
    (
        "gemma", {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
        "sliding_attention",
    ),
    *(
        ("llama", {key: value}, key)
        for key, values in {
            "hidden_size": [0, -64, 64.5, "64", [64], {}, True, 10**30, 63],
            "num_hidden_layers": [0, -1, 2.5, "3", 10**6],
            "num_attention_heads": [0, 3, "4"],
            "num_key_value_heads": [0, 3, 8],
            "head_dim": [0, 15, "16"],
            "vocab_size": [0, -1, 1e400, "384"],
            "intermediate_size": [0, None],
            "rms_norm_eps": [-1, "1e-5", [1e-5]],
            "rope_theta": [0, -1, "10000", {}],
            "max_position_embeddings": [0, "long", 2.5],
            "tie_word_embeddings": ["no", 3],
            "eos_token_id": ["x", -1, [1, "x"], {}],
            "torch_dtype": ["int8", 3],
        }.items()
        for value in values
    ),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "named"), REFUSED, ids=lambda x: str(x)[:60])
def test_settings_are_refused_by_name(
    kind: str, changes: dict[str, Any], named: str, base: Any, convert: Convert
) -> None:
    code, said = convert(base(kind, **changes), kind)
    assert code == 2
    assert "config.json" in said and named in said, said


def test_unknown_keys_are_named(base: Any, convert: Convert) -> None:
    code, said = convert(base(residual_multiplier=0.2, unheard_of=[1], use_cache=False))
    assert code == 0
    assert "not known here: residual_multiplier, unheard_of" in said
    assert "use_cache" not in said


# ---- the files ----


@pytest.mark.parametrize("stray", ["model-old.safetensors", "model_ema.safetensors", "adapter_model.safetensors"])
@pytest.mark.parametrize("indexed", [True, False])
def test_stray_weights_do_not_count(stray: str, indexed: bool, base: Any, convert: Convert, tmp_path: Path) -> None:
    folder = base()
    weights = mx.load(str(folder / "model.safetensors"))
    if indexed:
        (folder / "model.safetensors").rename(folder / "consolidated-00001-of-00001.safetensors")
        index = {"weight_map": dict.fromkeys(weights, "consolidated-00001-of-00001.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    mx.save_safetensors(str(folder / stray), {name: array * 2 for name, array in weights.items()})
    assert convert(folder, "llama", "--dtype", "float32", "--verify")[0] == 0
    expected = np.load(PEOPLE / "logits.npz")["plain llama"]
    np.testing.assert_allclose(last_logits(tmp_path / "out"), expected, atol=2e-4)
    mx.save_safetensors(str(tmp_path / "out" / stray), {"language_model.model.norm.weight": mx.zeros(64)})
    np.testing.assert_allclose(last_logits(tmp_path / "out"), expected, atol=2e-4)


@pytest.mark.parametrize("tied", [None, True])
def test_a_stored_head_is_used(tied: bool | None, base: Any, convert: Convert, tmp_path: Path) -> None:
    folder = base(tie_word_embeddings=tied)
    weights = mx.load(str(folder / "model.safetensors"))
    head = mx.array((tiny.noise("lm_head.weight", (tiny.VOCAB, 64)) / 8).astype(np.float32))
    mx.save_safetensors(str(folder / "model.safetensors"), weights | {"lm_head.weight": head})
    assert convert(folder, "llama", "--dtype", "float32", "--verify")[0] == 0
    expected = np.load(PEOPLE / "logits.npz")[f"own head, tied {tied}"]
    np.testing.assert_allclose(last_logits(tmp_path / "out"), expected, atol=2e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["text_config"]["tie_word_embeddings"] is False


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_head_that_is_a_copy_is_tied(kind: str, base: Any, convert: Convert, tmp_path: Path) -> None:
    folder = base(kind, tie_word_embeddings=None)
    weights = mx.load(str(folder / "model.safetensors"))
    copied = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    mx.save_safetensors(str(folder / "model.safetensors"), copied)
    assert convert(folder, kind, "--dtype", "float32")[0] == 0
    expected = np.load(PEOPLE / "logits.npz")[f"plain {kind}"]
    np.testing.assert_allclose(last_logits(tmp_path / "out"), expected, atol=2e-4)
    assert not any("lm_head" in name for name in mx.load(str(tmp_path / "out" / "model.safetensors")))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_named(value: float, base: Any, convert: Convert) -> None:
    folder = base()
    weights = mx.load(str(folder / "model.safetensors"))
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name] = mx.where(mx.arange(64) == 3, value, weights[name])
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    for options in ((), ("--verify",), ("--dtype", "float16"), ("-q", "--q-group-size", "32")):
        code, said = convert(folder, "llama", *options)
        assert code == 2 and name in said and "128 NaN or infinite values" in said, said


def test_a_dtype_that_is_too_small_is_named(base: Any, convert: Convert) -> None:
    folder = base()
    weights = mx.load(str(folder / "model.safetensors"))
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1e6
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    code, said = convert(folder, "llama", "--dtype", "float16")
    assert code == 2 and "model.norm.weight has values too large for float16" in said
    assert convert(folder, "llama")[0] == 0


def corrupt(folder: Path, way: str) -> None:
    weights, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    data = weights.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = "model.norm.weight"

    def rewrite(**changes: Any) -> None:
        text = json.dumps(header | {name: header[name] | changes}).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])

    match way:
        case "cut":
            weights.write_bytes(data[: len(data) // 2])
        case "empty":
            weights.write_bytes(b"")
        case "header cut":
            weights.write_bytes(data[:40])
        case "huge header":
            weights.write_bytes((2**60).to_bytes(8, "little") + data[8:])
        case "no JSON":
            weights.write_bytes(data[:8] + b"x" * size + data[8 + size :])
        case "overlapping":
            rewrite(data_offsets=[0, 128])
        case "beyond the end":
            rewrite(data_offsets=[len(data), len(data) + 128])
        case "negative":
            rewrite(data_offsets=[-128, 0])
        case "odd shape":
            rewrite(shape=[65])
        case "huge shape":
            rewrite(shape=[2**40, 2**40])
        case "odd dtype":
            rewrite(dtype="F8_E4M3")
        case "integers":
            mx.save_safetensors(str(weights), mx.load(str(weights)) | {name: mx.zeros(64, mx.int32)})
        case "index cut":
            index.write_text('{"weight_map": {"a": ')
        case "index empty":
            index.write_text("")
        case "index without map":
            index.write_text("{}")
        case "index a list":
            index.write_text("[]")
        case "index of numbers":
            index.write_text('{"weight_map": {"a": 3}}')
        case "index elsewhere":
            index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
        case "index of nothing":
            index.write_text('{"weight_map": {}}')
        case "index of a missing tensor":
            index.write_text('{"weight_map": {"a": "model.safetensors"}}')
        case "index deep":
            index.write_text("[" * 100_000)
        case "tokenizer cut":
            file = folder / "tokenizer.json"
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        case "tokenizer a list":
            (folder / "tokenizer.json").write_text("[]")
        case "tokenizer without model":
            (folder / "tokenizer.json").write_text('{"version": "1.0"}')
        case "tokenizer config cut":
            (folder / "tokenizer_config.json").write_text('{"bos_token": ')
        case "tokenizer config a list":
            (folder / "tokenizer_config.json").write_text("[1]")
        case "tokenizer config odd":
            (folder / "tokenizer_config.json").write_text('{"bos_token": 3, "eos_token": {"a": []}}')
        case "generation config cut":
            (folder / "generation_config.json").write_text("{")
        case "generation config odd":
            (folder / "generation_config.json").write_text('{"eos_token_id": "x"}')
        case "config deep":
            (folder / "config.json").write_text('{"a":' * 100_000)
        case "config a list":
            (folder / "config.json").write_text("[]")
        case "config binary":
            (folder / "config.json").write_bytes(bytes(range(256)))


WAYS = [
    "cut", "empty", "header cut", "huge header", "no JSON", "overlapping", "beyond the end", "negative",
    "odd shape", "huge shape", "odd dtype", "integers", "index cut", "index empty", "index without map",
    "index a list",
    "index of numbers", "index elsewhere", "index of nothing", "index of a missing tensor", "index deep",
    "tokenizer cut", "tokenizer a list", "tokenizer without model", "tokenizer config cut",
    "tokenizer config a list", "tokenizer config odd", "generation config cut", "generation config odd",
    "config deep", "config a list", "config binary",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_damaged_bases_give_one_line(way: str, base: Any, convert: Convert) -> None:
    folder = base()
    corrupt(folder, way)
    assert convert(folder)[0] == 2


@pytest.mark.parametrize("way", [way for way in WAYS if way != "integers"])
def test_damaged_models_give_one_line(
    way: str, base: Any, convert: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(base())[0] == 0
    model = tmp_path / "out"
    data = (model / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    plain = data[8 : 8 + size].replace(b'"language_model.model.norm.weight"', b'"model.norm.weight"')
    (model / "model.safetensors").write_bytes(len(plain).to_bytes(8, "little") + plain + data[8 + size :])
    if not way.startswith("index"):
        (model / "model.safetensors.index.json").unlink()
    corrupt(model, way)
    (tmp_path / "s.csv").write_text("x\n1\n2\n3\n4\n")
    code = main(["generate", "--model", str(model), "--stage", "stage2", "--series", str(tmp_path / "s.csv")])
    said = "".join(capsys.readouterr())
    assert code == 2 and said.count("error:") == 1 and "Traceback" not in said, said


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder_config": 3}, "encoder_config"),
        ({"encoder_config": {"hidden_size": "128"}}, "encoder_config.hidden_size"),
        ({"encoder_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers"),
        ({"encoder_config": {"num_attention_heads": 7}}, "7 heads"),
        ({"encoder_config": {"max_patches": -1}}, "max_patches"),
        ({"lora": {"rank": 0, "alpha": 1, "target_modules": []}}, "lora.rank"),
        ({"lora": {"rank": 4}}, "lora.alpha is missing"),
        ({"lora": "yes"}, "lora"),
        ({"quantization": {"bits": 4}}, "quantization"),
        ({"quantization": {"bits": "4", "group_size": 64}}, "quantization"),
        ({"text_config": None}, "text_config"),
        ({"text_config": {"model_type": "llama"}}, "vocab_size is missing"),
        ({"stage": 3}, "stage"),
        ({"leads": "II"}, "leads"),
        ({"pad_text_left": "yes"}, "pad_text_left"),
        ({"model_type": "llama"}, "model_type"),
    ],
)
def test_edited_models_name_the_field(
    changes: dict[str, Any], named: str, base: Any, convert: Convert, tmp_path: Path
) -> None:
    assert convert(base())[0] == 0
    file = tmp_path / "out" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(mlx_tslm.errors.TSLMError, match=named) as error:
        mlx_tslm.load(tmp_path / "out")
    assert "config.json" in str(error.value) and "\n" not in str(error.value)


# ---- tokens ----


def test_an_id_without_a_row_is_refused(base: Any, convert: Convert, tmp_path: Path) -> None:
    """The tokenizer knows 384 ids, the table has 380 rows: BOS (382) has none."""
    folder = base(vocab_size=380)
    weights = mx.load(str(folder / "model.safetensors"))
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:380]
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    code, said = convert(folder)
    assert code == 0 and "has tokens from 380 to 383, but base has 380 embeddings" in said
    model = mlx_tslm.load(tmp_path / "out")
    for call in (lambda: model.score(PROMPT, []), lambda: mlx_tslm.generate(model, PROMPT)):
        with pytest.raises(mlx_tslm.errors.TSLMError, match=r"token 382 .*has no row among the model's 380"):
            call()


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_ids_without_a_token_are_never_drawn(backend: str, base: Any, convert: Convert, tmp_path: Path) -> None:
    """A table that is padded from 384 to 448 rows, the new ones by far the most probable."""
    if backend == "torch":
        pytest.importorskip("torch")
    folder = base(vocab_size=448)
    weights = mx.load(str(folder / "model.safetensors"))
    table = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = mx.concatenate([table, 9 * table[:64]])
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    assert convert(folder, "llama", "--dtype", "float32")[0] == 0
    logits = last_logits(tmp_path / "out", backend)
    assert np.isneginf(logits[384:]).all()
    np.testing.assert_allclose(logits[:384], np.load(PEOPLE / "logits.npz")["plain llama"], atol=2e-4)
    model = mlx_tslm.load(tmp_path / "out", backend)
    drawn = [one.token for one in mlx_tslm.stream_generate(model, PROMPT, max_tokens=12, temperature=1.5)]
    assert max(drawn) < 384
    found = mlx_tslm.tree_search(
        model, PROMPT, num_rollouts=4, width=2, max_tokens=6, reward=lambda c: [0.0] * len(c)
    )
    assert all(token < 384 for one in found.completions for token in one.tokens)
    assert all(np.isfinite(one.logprob) for one in found.completions)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_special_tokens_without_tokenizer_config(kind: str, base: Any, convert: Convert, tmp_path: Path) -> None:
    folder = base(kind)
    (folder / "tokenizer_config.json").unlink()
    assert convert(folder, kind)[0] == 0
    tokenizer, config = mlx_tslm.load(tmp_path / "out").tokenizer, tiny.TEXT_CONFIGS[kind]
    for name in ("bos", "eos", "pad"):
        assert getattr(tokenizer, f"{name}_token_id") == config.get(f"{name}_token_id")
    assert tokenizer.encode("a")[0] == config["bos_token_id"]
    assert set(tokenizer.all_special_ids) >= {config["bos_token_id"], config["eos_token_id"]}


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [65, 66]}, 383, {65, 66, 383}),  # 383 is the tokenizer's own
        ({"eos_token_id": 65}, [66, 383], {65, 383}),
        ({"eos_token_id": None}, [66, 67], {66, 67, 383}),
        ({}, 66, {66, 383}),
        (None, [66, 67], {66, 67, 383}),
    ],
)
def test_both_files_say_where_an_answer_ends(
    generation: Any, config: Any, expected: set[int], base: Any, convert: Convert, tmp_path: Path
) -> None:
    folder = base(eos_token_id=config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert convert(folder)[0] == 0
    assert mlx_tslm.load(tmp_path / "out").eos_token_ids == expected


def test_an_answer_stops_at_any_of_the_ends(base: Any, convert: Convert, tmp_path: Path) -> None:
    folder = base()
    assert convert(folder)[0] == 0
    running = [one.token for one in mlx_tslm.stream_generate(mlx_tslm.load(tmp_path / "out"), PROMPT, max_tokens=8)]
    end = running[2]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [383, end]}))
    assert convert(folder)[0] == 0
    responses = list(mlx_tslm.stream_generate(mlx_tslm.load(tmp_path / "out"), PROMPT, max_tokens=8))
    assert responses[-1].finish_reason == "stop" and len(responses) == running.index(end) + 1


@pytest.mark.parametrize("backend", ["mlx", "torch"])
def test_a_model_of_no_numbers_does_not_answer(backend: str, base: Any, convert: Convert, tmp_path: Path) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    assert convert(base())[0] == 0
    file = tmp_path / "out" / "model.safetensors"
    weights = mx.load(str(file))
    mx.save_safetensors(str(file), weights | {"language_model.model.norm.weight": mx.full(64, np.nan, mx.bfloat16)})
    with pytest.raises(mlx_tslm.errors.TSLMError, match="logits are NaN"):
        mlx_tslm.generate(mlx_tslm.load(tmp_path / "out", backend), PROMPT)
