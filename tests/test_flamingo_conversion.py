"""Flamingo checkpoints, from the file that OpenTSLM writes to a converted folder and back."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
import tiny_flamingo
from test_golden import prompt

import mlx_tslm
from mlx_tslm import TSLMError, cli, conversion
from mlx_tslm.conversion import recipe
from mlx_tslm.conversion.pt import writer
from mlx_tslm.models.config import FlamingoConfig
from mlx_tslm.models.flamingo import FlamingoModel

State = OrderedDict[str, Any]
PREFIXES = ("model.", "llm.")


def content(kind: str, saved: str = "model_state", prefixes: tuple[str, ...] = PREFIXES) -> dict[str, Any]:
    """What OpenTSLM saves: its `store_to_file` under `llm`, its curriculum under `model_state`."""
    state = tiny_flamingo.original_state(kind)
    if saved == "llm":
        return {"llm": state}
    both: State = OrderedDict((prefix + name, value) for prefix in prefixes for name, value in state.items())
    return {"model_state": both, "val_loss": 1.25, "epoch": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flamingo")
    for kind in ("llama", "gemma"):
        tiny_flamingo.write_base(kind, folder / kind)
        writer.write(folder / f"{kind}.pt", content(kind))
    tiny.write_checkpoint("llama", folder / "sp.pt")
    tiny.write_base("llama", folder / "whole")
    return folder


def convert(files: Path, out: Path, source: str | Path = "llama.pt", kind: str = "llama", **options: Any) -> Any:
    return conversion.convert(files / source, out, llm=str(files / kind), **options)


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_converted_folder_is_the_model(files: Path, tmp_path: Path, kind: str) -> None:
    """The base LLM's folder has no weights: they are in the file. Every tensor is verified."""
    summary = convert(files, tmp_path / "out", f"{kind}.pt", kind, verify=True)
    assert all(one.difference == 0 for one in summary.comparisons)
    assert summary.parameters.keys() == {"encoder", "perceiver", "gated_blocks", "language_model"}
    model, expected = mlx_tslm.load(tmp_path / "out"), tiny_flamingo.tiny_model(kind)
    assert isinstance(model, FlamingoModel)
    for case in ("tsqa", "unequal"):
        assert model.tokenize(prompt(case)) == expected.tokenize(prompt(case))
        np.testing.assert_array_equal(model.score(prompt(case), [5, 6]), expected.score(prompt(case), [5, 6]))
    tokens = tiny_flamingo.SPECIAL_TOKENS[kind]
    assert [model.tokenizer.convert_tokens_to_ids(token) for token in tokens] == [
        tiny.VOCAB + index for index in range(len(tokens))
    ]
    assert model.tokenizer.pad_token == ("<PAD>" if kind == "llama" else "<pad>")


@pytest.mark.parametrize(
    "saved",
    [("llm", ()), ("model_state", PREFIXES), ("model_state", ("model.",)), ("model_state", ("llm.",))],
    ids=["store_to_file", "curriculum", "model only", "llm only"],
)
def test_each_way_of_saving_gives_the_same(files: Path, tmp_path: Path, saved: tuple[str, Any]) -> None:
    writer.write(tmp_path / "x.pt", content("llama", *saved))
    convert(files, tmp_path / "x", tmp_path / "x.pt")
    convert(files, tmp_path / "y")
    assert (tmp_path / "x/model.safetensors").read_bytes() == (tmp_path / "y/model.safetensors").read_bytes()


def elsewhere(way: str) -> dict[str, Any]:
    state: State = tiny_flamingo.original_state("llama")
    if way == "flat":
        return state
    if way == "parallel":
        return {"llm": OrderedDict((f"module.{name}", value) for name, value in state.items())}
    return {way: state, "epoch": 3}


@pytest.mark.parametrize("way", ["flat", "parallel", "state_dict", "model", "model_state_dict", "checkpoint"])
def test_a_state_elsewhere_in_the_file_is_found(files: Path, tmp_path: Path, way: str) -> None:
    writer.write(tmp_path / "x.pt", elsewhere(way))
    convert(files, tmp_path / "x", tmp_path / "x.pt")
    convert(files, tmp_path / "y")
    assert (tmp_path / "x/model.safetensors").read_bytes() == (tmp_path / "y/model.safetensors").read_bytes()


def test_two_models_in_a_file(files: Path, tmp_path: Path) -> None:
    both = {"llm": tiny_flamingo.original_state("llama")} | content("llama")
    writer.write(tmp_path / "x.pt", both)
    with pytest.raises(TSLMError, match="more than one Flamingo model"):
        convert(files, tmp_path / "out", tmp_path / "x.pt")


@pytest.mark.parametrize(("dtype", "stored"), [("float16", "float16"), ("float64", "float32")])
def test_the_file_s_own_dtype(files: Path, tmp_path: Path, dtype: str, stored: str) -> None:
    """One that no LLM is stored in becomes float32."""
    state: State = tiny_flamingo.original_state("llama")
    altered(state, "", lambda v: v.astype(dtype))
    writer.write(tmp_path / "x.pt", {"llm": state})
    convert(files, tmp_path / "out", tmp_path / "x.pt", verify=True)
    assert str(mlx_tslm.load(tmp_path / "out").dtype) == f"mlx.core.{stored}"


def test_not_a_number(files: Path, tmp_path: Path) -> None:
    changed = content("llama")
    altered(changed["model_state"], "perceiver.norm.weight", lambda v: np.full_like(v, np.nan))
    writer.write(tmp_path / "x.pt", changed)
    with pytest.raises(TSLMError, match=r"perceiver.norm.weight of the checkpoint holds 128 NaN"):
        convert(files, tmp_path / "out", tmp_path / "x.pt")
    assert not (tmp_path / "out").exists()


def test_the_cache_tells_its_models_apart(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config states what it was made from; the same source is found again, other bits are another folder."""
    monkeypatch.setenv("MLX_TSLM_CACHE", str(tmp_path))
    llm = str(files / "llama")
    first = conversion.convert(files / "llama.pt", llm=llm)
    assert json.loads((first.path / "config.json").read_text())["source"]["sha256"]
    assert conversion.ensure_converted(str(files / "llama.pt")) == first.path
    assert conversion.convert(files / "llama.pt", llm=llm, quantize=8).path != first.path


CROSS: dict[str, Any] = {"num_latents": 0, "perceiver_layers": "six", "num_attention_heads": -1, "head_size": None}


@pytest.mark.parametrize("field", CROSS)
def test_a_config_that_says_nonsense(files: Path, tmp_path: Path, field: str) -> None:
    convert(files, tmp_path / "out")
    path = tmp_path / "out/config.json"
    config = json.loads(path.read_text())
    config["cross_config"][field] = CROSS[field]
    path.write_text(json.dumps(config))
    with pytest.raises(TSLMError, match=rf"cross_config.{field}\b") as error:
        mlx_tslm.load(tmp_path / "out")
    assert "\n" not in str(error.value)


def without(state: State, ending: str) -> None:
    for name in [name for name in state if name.endswith(ending)]:
        del state[name]


def one_list_only(state: State) -> None:
    without(state, "")
    state.update(content("llama")["model_state"])
    for name in [name for name in state if "old_decoder_blocks" in name or ".gated_cross_attn_layers." in name]:
        del state[name]


def copies(state: State) -> None:
    for name in state:
        state[name] = state[name].copy()


@pytest.mark.parametrize("change", [one_list_only, copies])
def test_names_are_needed_once_and_storages_may_be_copies(files: Path, tmp_path: Path, change: Any) -> None:
    changed = content("llama")
    change(changed["model_state"])
    writer.write(tmp_path / "x.pt", changed)
    convert(files, tmp_path / "x", tmp_path / "x.pt")
    convert(files, tmp_path / "y")
    assert (tmp_path / "x/model.safetensors").read_bytes() == (tmp_path / "y/model.safetensors").read_bytes()


def altered(state: State, part: str, change: Any) -> None:
    for name in [name for name in state if part in name]:
        state[name] = change(state[name])


BAD: dict[str, tuple[Any, str]] = {
    "a missing gate": (
        lambda s: without(s, "1.attn_gate") or without(s, "layers.1.gated_cross_attn_layer.attn_gate"),
        "lang_encoder.gated_cross_attn_layers.1.attn_gate is missing",
    ),
    "no gated blocks at all": (lambda s: [s.pop(n) for n in list(s) if "gated_cross" in n], "is missing"),
    "no perceiver": (lambda s: [s.pop(n) for n in list(s) if "perceiver" in n], "perceiver.*missing"),
    "no encoder": (lambda s: [s.pop(n) for n in list(s) if "vision" in n], "vision_encoder.*missing"),
    "no LLM": (lambda s: [s.pop(n) for n in list(s) if "lang" in n], "missing"),
    "one decoder layer short": (
        lambda s: [s.pop(n) for n in list(s) if "layers.2." in n or "blocks.2." in n],
        "missing|layers",
    ),
    "left over": (lambda s: s.update(extra=np.ones(3, np.float32)), "unexpected tensor, extra"),
    "frame embeddings": (
        lambda s: s.update({"model.perceiver.frame_embs": np.ones((2, 128), np.float32)}),
        "unexpected tensor, model.perceiver.frame_embs",
    ),
    "two values of one tensor": (
        lambda s: s.update({"llm.perceiver.latents": s["model.perceiver.latents"] + 1}),
        "latents and llm.perceiver.latents are names of one tensor, but have different values",
    ),
    "a table of the base's size": (
        lambda s: (
            altered(s, "embed_tokens", lambda v: v[: tiny.VOCAB])
            or altered(s, "lm_head", lambda v: v[: tiny.VOCAB])
        ),
        "embedding table has 384 rows, but the tokenizer of llama has 387 tokens",
    ),
    "a perceiver of another shape inside": (
        lambda s: altered(s, "perceiver.layers.3.0.to_out", lambda v: v[:, :256]),
        r"to_out.* has shape \[128, 256\], but \[128, 512\] is needed",
    ),
    "integers": (lambda s: altered(s, "pos_embed", lambda v: v.astype(np.int64)), "not of floating point"),
    "not a matrix": (lambda s: altered(s, "perceiver.latents", lambda v: v[0]), r"shape \[128\]"),
    "empty": (lambda s: s.clear(), "missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_say_what_is_wrong(files: Path, tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    changed = content("llama")
    change(changed["model_state"])
    writer.write(tmp_path / "x.pt", changed)
    with pytest.raises(TSLMError, match=message) as error:
        convert(files, tmp_path / "out", tmp_path / "x.pt")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_perceiver_of_another_size_is_read_from_the_file(files: Path, tmp_path: Path) -> None:
    changed = content("llama")
    state = changed["model_state"]
    altered(state, "perceiver.latents", lambda v: v[:32])
    for name in [name for name in state if ".layers.5." in name and "perceiver" in name]:
        del state[name]
    writer.write(tmp_path / "x.pt", changed)
    sizes = convert(files, tmp_path / "out", tmp_path / "x.pt").config.cross_config
    assert (sizes.num_latents, sizes.perceiver_layers, sizes.num_attention_heads) == (32, 5, 8)
    assert np.isfinite(np.array(mlx_tslm.load(tmp_path / "out").score(prompt("tsqa"), []))).all()


@pytest.mark.parametrize("other", ["gemma", "whole"])
def test_another_base(files: Path, tmp_path: Path, other: str) -> None:
    """Another LLM's folder is refused; one with weights is as good as one without."""
    if other == "whole":
        assert convert(files, tmp_path / "out", kind="whole").base_size == 0
        return
    with pytest.raises(TSLMError, match="is 72 wide, but the checkpoint's is 64"):
        convert(files, tmp_path / "out", kind=other)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(list(map(str, arguments))) == 2
    return " ".join(capsys.readouterr().err.split())


def test_the_other_variant_is_named(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = ["--llm", str(files / "whole")], ["-o", str(tmp_path / "out")]
    told = refused(capsys, "convert", str(files / "sp.pt"), "--variant", "flamingo", *base, *out)
    assert "this is a soft-prompt checkpoint, not a Flamingo one" in told
    told = refused(capsys, "convert", str(files / "llama.pt"), "--variant", "sp", *base, *out)
    assert "this is a Flamingo checkpoint, not a soft-prompt one" in told
    told = refused(capsys, "convert", "OpenTSLM/llama-3.2-1b-ecg-sp", "--variant", "flamingo", *out)
    assert "is of the variant sp, not flamingo" in told
    assert "unknown variant" in refused(capsys, "convert", "stage1", "--variant", "x", *out)
    assert "no tokenizer of its base LLM" in refused(capsys, "convert", str(files / "llama.pt"), *out)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"lora_alpha": 8.0}, "--lora-alpha"),
        ({"fuse": False}, "--no-fuse"),
        ({"encoder_heads": 4, "fuse": False}, "--encoder-heads, --no-fuse"),
        ({}, None),
    ],
)
def test_options_without_effect_are_named(files: Path, tmp_path: Path, options: Any, named: str | None) -> None:
    notes = [note for note in convert(files, tmp_path / "out", **options).notes if "without effect" in note]
    assert [note.partition(": ")[2].partition(";")[0] for note in notes] == ([named] if named else [])


def test_every_published_name_is_known() -> None:
    for stage, data in enumerate(("tsqa", "m4", "har", "sleep", "ecg"), start=1):
        for base, llm in {
            "llama-3.2-1b": "meta-llama/Llama-3.2-1B",
            "llama-3.2-3b": "meta-llama/Llama-3.2-3B",
            "gemma-3-270m": "google/gemma-3-270m",
            "gemma-3-1b": "google/gemma-3-1b-pt",
        }.items():
            repo = f"OpenTSLM/{base}{'-pt' if base == 'gemma-3-1b' else ''}-{data}-flamingo"
            expected = (f"stage{stage}", "flamingo", base, repo, llm)
            for found in (recipe.resolve(f"stage{stage}", variant="flamingo", base=base), recipe.resolve(repo)):
                assert (found.stage, found.variant, found.base, found.repo, found.llm) == expected
    assert recipe.resolve("stage1").variant == "sp"


@pytest.mark.parametrize(("bits", "dtype"), [(8, None), (4, "bfloat16"), (None, "bfloat16")])
def test_stored_smaller(files: Path, tmp_path: Path, bits: int | None, dtype: str | None) -> None:
    """LLM and gated blocks are what changes; encoder and perceiver stay float32."""
    summary = convert(files, tmp_path / "out", quantize=bits, dtype=dtype, verify=True)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["model_type"] == "opentslm_flamingo"
    assert config["text_config"]["torch_dtype"] == (dtype or "float32")
    kinds = {one.name: one.dtype for one in summary.comparisons}
    assert all(kind == "float32" for name, kind in kinds.items() if name.startswith(("encoder.", "perceiver.")))
    gated = kinds["gated_blocks.0.feed_forward.linear1.weight"]
    assert gated == (f"{bits}-bit, groups of 64" if bits else dtype)
    model, exact = mlx_tslm.load(tmp_path / "out"), tiny_flamingo.tiny_model("llama")
    found, expected = (np.array(one.score(prompt("tsqa"), [5])) for one in (model, exact))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > (0.9 if bits == 4 else 0.99)
    assert model.dtype == (mx.bfloat16 if dtype else mx.float32)


def test_memory_does_not_grow_with_the_file(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a block of a tensor is alive at once, and what was read is given back."""
    from mlx_tslm.conversion import plan
    from mlx_tslm.conversion.pt.tensors import Storage

    monkeypatch.setattr(plan, "_BLOCK", 4096)
    released: list[str] = []
    release = Storage.release
    monkeypatch.setattr(Storage, "release", lambda self: released.append(self.name) or release(self))
    sizes: list[int] = []
    values = plan.checkpoint_values
    monkeypatch.setattr(
        plan, "checkpoint_values", lambda *given: sizes.append(values(*given).size) or values(*given)
    )
    convert(files, tmp_path / "small")
    positions = 1024 * 128  # one row
    assert max(size for size in sizes if size != positions) <= 4096 and len(released) >= len(sizes)
    monkeypatch.undo()
    convert(files, tmp_path / "whole")
    assert (tmp_path / "small/model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()


def test_the_card_and_the_tables(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["convert", str(files / "llama.pt"), "--llm", str(files / "llama"), "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert "perceiver" in told and "its config and tokenizer" in told
    card = (out / "README.md").read_text()
    assert "An OpenTSLM Flamingo model" in card and "gated_blocks" in card
    assert cli.main(["models"]) == 0
    assert capsys.readouterr().out.count("flamingo") == 5


def test_config_round_trip() -> None:
    config = FlamingoConfig(tiny_flamingo.text_config("llama"))
    assert FlamingoConfig.read(config.to_dict()) == config


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_commands_run_it_as_they_run_a_soft_prompt_model(
    files: Path, tmp_path: Path, airline: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """By the front door, on a stage with one series and on one with many."""

    def run(*arguments: Any) -> str:
        assert cli.main(list(map(str, arguments))) == 0
        return capsys.readouterr().out

    model, budget = tmp_path / "model", ("--max-tokens", 6, "--seed", 0)
    run("convert", files / f"{kind}.pt", "--llm", files / kind, "-o", model, "--verify")
    asked = ("--model", model, "--series", airline, "--stage", "stage2")
    told = json.loads(run("generate", *asked, "--json", "-", *budget))
    assert told["prompt_tokens"] < 400
    out = tmp_path / "found.json"
    whole = ("--num-rollouts", 6, "--width", 3, "--top-p", 1)  # of the default p so peaked a model has 3 answers
    run("search", *asked, *whole, "--json", out, "--html", tmp_path / "x.html", *budget)
    found = json.loads(out.read_text())
    assert len(found["completions"]) == 6 and (tmp_path / "x.html").stat().st_size > 1000
    assert found["stats"]["prompt_tokens"] == told["prompt_tokens"]
    evaluated = ("--stage", "stage5", "--source", "synthetic", "--limit", 2, "--max-tokens", 4)
    run("eval", "--model", model, *evaluated, "--method", "maxent-ts", "--num-rollouts", 4, "-o", tmp_path / "e")
    assert (tmp_path / "e").is_dir()
