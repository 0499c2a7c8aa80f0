"""Checkpoints as people have them: PEFT's ways, wrapped names, other layouts, what lies beside the weights.

`data/people/*.pt` and `merged.npz` were made with torch and PEFT; `make.py` there says how.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny
from fake_hub import FakeHub
from mlx.utils import tree_flatten

from mlx_tslm import conversion
from mlx_tslm.cli import main
from mlx_tslm.conversion import hub as needed
from mlx_tslm.conversion import recipe, store
from mlx_tslm.conversion.pt import writer as pt_writer
from mlx_tslm.conversion.pt.reader import read
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.fetching import hub as fetching
from mlx_tslm.models import language_model

PEOPLE = Path(__file__).parent / "data" / "people"
TINY = {
    "model_type": "llama", "vocab_size": 384, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "max_position_embeddings": 512,
}  # fmt: skip
QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("MLX_TSLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_base(folder: Path, factor: float = 1.0) -> Path:
    """The base LLM that the adapters in `data/people` were made for."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny.GOLDEN / "llama" / name, folder)
    shapes = {name: array.shape for name, array in tree_flatten(language_model.build(TINY).parameters())}
    weights = {
        name: mx.array((factor * tiny.noise(name, shape) / 4).astype(np.float32)) for name, shape in shapes.items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That base LLM, written once."""
    return write_base(tmp_path_factory.mktemp("people") / "base")


Convert = Callable[..., "tuple[int, str]"]


@pytest.fixture
def convert(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Run `convert` on a file, and return the exit code and what was said."""

    def run(path: Path, *options: str) -> tuple[int, str]:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        code = main(["convert", str(path), "--llm", str(base), "-o", str(out), *options])
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said
        assert code == 0 or (said.count("error:") == 1 and not out.exists()), said
        return code, " ".join(said.split())

    return run


def query(out: Path) -> np.ndarray:
    return np.array(mx.load(str(out / "model.safetensors"))[f"language_model.{QUERY}"])


def changed(path: Path, source: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    content = read(PEOPLE / source)
    change(content)
    pt_writer.write(path, content)
    return path


# ---- adapters ----

KINDS = [
    "pattern", "layers", "all_linear", "named", "two_configs", "keywords", "to_dict", "silent16", "gaussian",
    "orthogonal", "zero",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_merged_as_peft_does(kind: str, convert: Convert, tmp_path: Path) -> None:
    code, said = convert(PEOPLE / f"{kind}.pt", "--verify")
    assert code == 0, said
    np.testing.assert_allclose(query(tmp_path / "out"), np.load(PEOPLE / "merged.npz")[kind], atol=2e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assumed = "does not state LoRA's alpha: OpenTSLM's own, 32 for rank 16, is assumed"
    assert (assumed in said) == (assumed in card) == (kind == "silent16")


@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_2", "olora"])
def test_initialisations_that_change_the_base_are_refused(kind: str, convert: Convert) -> None:
    code, said = convert(PEOPLE / f"{kind}.pt", "--verify")
    assert code == 2 and f"init_lora_weights '{kind}" in said


@pytest.mark.parametrize("start", ["corda", "CorDA", "loftq", "lora_ga", "PiSSA", "unheard_of"])
@pytest.mark.parametrize("form", ["record", "dictionary"])
def test_other_initialisations(start: str, form: str, convert: Convert, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        state = content["lora_config"]["default"].state
        state["init_lora_weights"] = start
        if form == "dictionary":
            content["lora_config"] = {"r": 4, "lora_alpha": 12, "init_lora_weights": start}

    code, said = convert(changed(tmp_path / "x.pt", "gaussian.pt", change))
    assert code == 2 and "init_lora_weights" in said and start.lower() in said


def without(module: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for side in "AB":
            content["lora_state"].pop(f"base_model.model.model.layers.{module}.lora_{side}.default.weight")

    return change


@pytest.mark.parametrize(
    ("source", "module"),
    [("pattern.pt", "0.self_attn.v_proj"), ("layers.pt", "2.self_attn.q_proj"),
     ("all_linear.pt", "1.mlp.down_proj"), ("keywords.pt", "0.self_attn.q_proj"),
     ("silent16.pt", "1.self_attn.v_proj")],
)  # fmt: skip
def test_a_missing_adapter_is_named(source: str, module: str, convert: Convert, tmp_path: Path) -> None:
    code, said = convert(changed(tmp_path / "x.pt", source, without(module)))
    assert code == 2 and f"the adapter of model.layers.{module} is missing" in said


def test_layers_that_are_not_adapted_are_not_missed(convert: Convert, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        state = content["lora_config"]["default"].state
        state["exclude_modules"] = r".*layers\.0\..*"
        without("0.self_attn.q_proj")(content)
        without("0.self_attn.v_proj")(content)

    code, said = convert(changed(tmp_path / "x.pt", "gaussian.pt", change))
    assert code == 0, said


@pytest.mark.parametrize(
    "pattern",
    [r"(.*)*\.q_proj|(x+x+)+y", "(?R)", r"((a{1000}){1000}){1000}", "(" * 900 + ")" * 900, "(", "(a|b|ab)*" * 400,
     r"(model|layers|\.|[0-9])*self_attn(\.|q|_|proj|v)*!"],
    ids=range(7),
)  # fmt: skip
def test_hostile_patterns_cost_nothing(pattern: str, convert: Convert, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["lora_config"]["default"].state["target_modules"] = pattern

    convert(
        changed(tmp_path / "x.pt", "pattern.pt", change)
    )  # refused or not: in bounded time, without a traceback


def test_alpha_that_nobody_states(convert: Convert, tmp_path: Path) -> None:
    path = changed(tmp_path / "x.pt", "gaussian.pt", lambda c: c.pop("lora_config"))
    code, said = convert(path)
    assert code == 2 and "--lora-alpha" in said and "rank is 4" in said
    assert convert(path, "--lora-alpha", "12")[0] == 0
    np.testing.assert_allclose(query(tmp_path / "out"), np.load(PEOPLE / "merged.npz")["gaussian"], atol=2e-6)
    code, said = convert(PEOPLE / "gaussian.pt", "--lora-alpha", "13")
    assert code == 2 and "states lora_alpha 12" in said


# ---- names and layouts ----


@pytest.mark.parametrize(
    "wrap",
    [lambda n: f"module.{n}", lambda n: f"_orig_mod.{n}", lambda n: f"module._orig_mod.{n}",
     lambda n: n.replace("layers.0", "layers.0._checkpoint_wrapped_module"),
     lambda n: "_fsdp_wrapped_module." + n.replace("self_attn", "_fsdp_wrapped_module.self_attn")],
    ids=["ddp", "compiled", "both", "checkpointing", "fsdp"],
)  # fmt: skip
def test_wrapped_names(wrap: Callable[[str], str], convert: Convert, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for part in ("encoder_state", "projector_state", "lora_state"):
            content[part] = {wrap(name): tensor for name, tensor in content[part].items()}

    assert convert(changed(tmp_path / "x.pt", "gaussian.pt", change))[0] == 0
    np.testing.assert_allclose(query(tmp_path / "out"), np.load(PEOPLE / "merged.npz")["gaussian"], atol=2e-6)


def flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    parts = {"encoder_state": "encoder.", "projector_state": "projector.", "lora_state": "llm."}
    return {
        f"{prefix}{start}{name}": tensor for part, start in parts.items() for name, tensor in content[part].items()
    }


LAYOUTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "model": lambda c: {"model": c, "epoch": 3},
    "state_dict": lambda c: {"state_dict": c},
    "model_state": lambda c: {"model_state": c},
    "encoder and projector": lambda c: {
        "encoder": c["encoder_state"], "projector": c["projector_state"], "lora": c["lora_state"],
        "lora_config": c["lora_config"],
    },
    "flat": lambda c: flat(c) | {"lora_config": c["lora_config"]},
    "flat in model": lambda c: {"model": flat(c), "lora_config": c["lora_config"]},
    "flat, Lightning": lambda c: {"state_dict": flat(c, "model."), "lora_config": c["lora_config"]},
    "trainable_state": lambda c: {"trainable_state": flat(c), "lora_config": c["lora_config"]},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, convert: Convert, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    pt_writer.write(path, LAYOUTS[layout](read(PEOPLE / "gaussian.pt")))
    code, said = convert(path)
    assert code == 0, said
    np.testing.assert_allclose(query(tmp_path / "out"), np.load(PEOPLE / "merged.npz")["gaussian"], atol=2e-6)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (lambda c: {"model": c, "state_dict": c}, "more than one model"),
        (lambda c: flat(c) | {"llm.model.norm.weight": np.ones(16, np.float32)}, "holds weights of the LLM too"),
        (lambda c: {"weights": c}, "no OpenTSLM checkpoint"),
        (lambda c: {"encoder": c["encoder_state"], "encoder_state": c["encoder_state"]}, "both encoder"),
    ],
)
def test_ambiguous_layouts_are_explained(layout: Any, message: str, convert: Convert, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    pt_writer.write(path, layout(read(PEOPLE / "gaussian.pt")))
    code, said = convert(path)
    assert code == 2 and message in said and "torch.save(" in said


def test_a_state_dict_of_torch(convert: Convert, tmp_path: Path) -> None:
    assert convert(PEOPLE / "flat.pt", "--verify")[0] == 0
    assert query(tmp_path / "out").shape == (16, 16)


# ---- company ----


@pytest.mark.parametrize("file", ["company.pt", "company5.pt"])
def test_harmless_company_is_read_past(file: str, convert: Convert) -> None:
    code, said = convert(PEOPLE / file, "--verify")
    assert code == 0, said
    content = read(PEOPLE / file)
    assert content["args"].name == "argparse.Namespace" and content["args"].get("lr") == 1e-3
    assert content["settings"].get("rate") == 1e-3
    assert content["default"] == {"a": [1]} and content["bag"].get("a") == 1
    assert content["by_step"][1, "loss"] == 0.5 and content["by_step"][2, ("a", 3)] == 1
    assert content["scalar"] == 0.25
    inert = int | float | str | bytes | bytearray | list | tuple | dict | set | Record | Tensor | None
    for name, value in content.items():
        assert isinstance(value, inert) or type(value).__module__.startswith("mlx_tslm."), name
    for name in ("sparse", "csr", "quantized", "meta", "nested", "array", "text", "path", "date"):
        assert isinstance(content[name], Record), name


@pytest.mark.parametrize("kind", ["sparse", "quantized", "meta"])
def test_a_needed_tensor_of_an_unusual_kind_is_named(kind: str, convert: Convert, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    content = torch.load(PEOPLE / "flat.pt")["state_dict"]
    name = "module._orig_mod.encoder.input_norm.bias"
    made = {
        "sparse": lambda t: t.to_sparse(),
        "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "meta": lambda t: t.to("meta"),
    }
    content[name] = made[kind](content[name])
    torch.save(content, tmp_path / "x.pt")
    code, said = convert(tmp_path / "x.pt")
    assert code == 2 and "input_norm.bias is a torch._utils._rebuild" in said and "ordinary tensor" in said


# ---- encoder heads ----


def test_encoder_heads(convert: Convert, tmp_path: Path) -> None:
    code, said = convert(PEOPLE / "flat.pt")
    assert code == 0 and "8 assumed (--encoder-heads)" in said
    assert "8 assumed" in (tmp_path / "out" / "README.md").read_text()
    assert convert(PEOPLE / "flat.pt", "--encoder-heads", "4")[0] == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["encoder_config"]["num_attention_heads"] == 4
    code, said = convert(PEOPLE / "flat.pt", "--encoder-heads", "3")
    assert code == 2 and "does not divide into 3 heads" in said


# ---- the cache ----


@pytest.fixture
def served(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str | None]]:
    """A Hub of one's own: every repository has a checkpoint, which differs by owner, name, file and revision."""
    asked: list[tuple[str, str, str | None]] = []
    numbers: dict[tuple[str, str, str | None], int] = {}

    def checkpoint(repo: str, file: str, revision: str | None = None, progress: Any = None) -> Path:
        asked.append((repo, file, revision))
        path = tmp_path / "hub" / f"{repo}-{revision}".replace("/", "-") / file
        path.parent.mkdir(parents=True, exist_ok=True)
        number = numbers.setdefault((repo, file, revision), 1 + len(numbers))

        def change(content: dict[str, Any]) -> None:
            name = "module._orig_mod.projector.projector.1.bias"
            bias = content["state_dict"][name]
            content["state_dict"][name] = np.full(bias.shape, number, np.float32)

        return changed(path, "flat.pt", change)

    monkeypatch.setattr(fetching, "cached_file", checkpoint)
    monkeypatch.setattr(fetching, "cached_folder", lambda *_, **__: base)
    return asked


def bias(folder: Path) -> float:
    return float(mx.load(str(folder / "model.safetensors"))["projector.linear.bias"][0])


def test_models_of_one_name_are_told_apart(
    served: list[Any], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Owner, name, file and revision make a model; the same again is converted once."""
    caplog.set_level(logging.WARNING)
    text = 'repo = "{}"\nllm = "me/base"\nfile = "{}"\n{}\n'
    wanted = [
        ("me/har-sp", "a.pt", ""),
        ("you/har-sp", "a.pt", ""),
        ("me/har-sp", "b.pt", ""),
        ("me/har-sp", "a.pt", 'revision = "v1"'),
        ("me/har-sp", "a.pt", 'llm_revision = "v1"'),
    ]
    folders = []
    for number, one in enumerate(wanted):
        path = tmp_path / f"{number}.toml"
        path.write_text(text.format(*one))
        folders.append(conversion.ensure_converted(path))
        assert conversion.ensure_converted(path) == folders[-1]
    assert len(set(folders)) == len(folders) == len(served)
    assert len({bias(folder) for folder in folders}) == 4  # the base's revision makes no other checkpoint
    assert folders[0].name == "har-sp" and all(one.name.startswith("har-sp-") for one in folders[1:])
    assert "har-sp in the cache is another model" in caplog.text


def test_a_namesake_of_a_published_model(served: list[Any], tmp_path: Path) -> None:
    published = conversion.ensure_converted("OpenTSLM/llama-3.2-1b-har-sp")
    assert conversion.ensure_converted("opentslm/Llama-3.2-1B-har-sp") == published
    path = tmp_path / "mine.toml"
    path.write_text('repo = "me/llama-3.2-1b-har-sp"\nllm = "me/base"\n')
    mine = conversion.ensure_converted(path)
    assert mine != published and bias(mine) != bias(published)
    assert conversion.ensure_converted("stage3") == published


def test_another_base_is_another_model(base: Path, tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", factor=2.0)
    first = conversion.convert(PEOPLE / "gaussian.pt", llm=str(base)).path
    second = conversion.convert(PEOPLE / "gaussian.pt", llm=str(other)).path
    assert first != second
    assert np.abs(query(first) - query(second)).max() > 0.1
    with pytest.raises(TSLMError, match=rf"several base LLMs; name one of {first.name}, {second.name}"):
        conversion.ensure_converted(PEOPLE / "gaussian.pt")
    assert conversion.ensure_converted(second.name) == second


def test_a_folder_without_provenance_is_not_taken_for_it(served: list[Any], cache: Path) -> None:
    """As an earlier version left it: nobody knows whose it is."""
    old = conversion.ensure_converted("stage3")
    config = json.loads((old / "config.json").read_text())
    del config["source"]
    (old / "config.json").write_text(json.dumps(config))
    assert conversion.ensure_converted("stage3") != old
    assert conversion.ensure_converted(old.name) == old


# ---- names on the Hub ----


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("me/x", ("me/x", "model_checkpoint.pt", None)),
        ("me/x/", ("me/x", "model_checkpoint.pt", None)),
        ("https://huggingface.co/me/x", ("me/x", "model_checkpoint.pt", None)),
        ("https://huggingface.co/me/x/", ("me/x", "model_checkpoint.pt", None)),
        ("huggingface.co/me/x", ("me/x", "model_checkpoint.pt", None)),
        ("https://hf.co/me/x/tree/main", ("me/x", "model_checkpoint.pt", None)),
        ("https://huggingface.co/me/x/blob/main/best.pt", ("me/x", "best.pt", None)),
        ("https://huggingface.co/me/x/resolve/v2/a/best.pt?download=true", ("me/x", "a/best.pt", "v2")),
        ("OPENTSLM/llama-3.2-1b-ECG-sp", ("OpenTSLM/llama-3.2-1b-ecg-sp", "model_checkpoint.pt", None)),
        (
            "https://huggingface.co/OpenTSLM/gemma-3-270m-m4-sp",
            ("OpenTSLM/gemma-3-270m-m4-sp", "model_checkpoint.pt", None),
        ),
    ],
)
def test_names_of_the_hub(source: str, expected: tuple[str, str, str | None]) -> None:
    found = recipe.resolve(source)
    assert (found.repo, found.file, found.revision) == expected


def test_bases_by_any_name() -> None:
    assert recipe.resolve("me/x", base="gemma-3-270m").llm == "google/gemma-3-270m"
    assert recipe.resolve("me/x", base="Gemma-3-270M").llm == "google/gemma-3-270m"
    assert recipe.resolve("stage1", base="unsloth/Llama-3.2-1B").llm == "unsloth/Llama-3.2-1B"
    assert recipe.resolve("me/x", file="y.pt", revision="v1").file == "y.pt"
    with pytest.raises(TSLMError, match="has no --file"):
        recipe.resolve("x.pt", file="y.pt")


def test_another_file_is_offered(hub: FakeHub) -> None:
    hub.repos["me/x"] = {"README.md": b"", "best.pt": b"", "last.pt": b""}
    with pytest.raises(TSLMError, match=r"there is best\.pt, last\.pt: name one with --file best\.pt"):
        needed.fetch_checkpoint(recipe.Recipe("x", repo="me/x"))
    hub.repos["me/x"] = {"README.md": b""}
    with pytest.raises(TSLMError, match=r"no \.pt file at all"):
        needed.fetch_checkpoint(recipe.Recipe("x", repo="me/x"))


# ---- where it goes ----


def test_links_are_followed(convert: Convert, base: Path, tmp_path: Path) -> None:
    options = {"llm": str(base)}
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "new" / "place")
    for name in ("link", "dangling"):
        conversion.convert(PEOPLE / "flat.pt", tmp_path / name, **options)
        assert (tmp_path / name).is_symlink() and store.read_config(tmp_path / name) is not None
        conversion.convert(PEOPLE / "gaussian.pt", tmp_path / name, force=True, **options)
        assert (tmp_path / name).is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link", "dangling", "new"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["place"]


def test_a_mount_point_is_filled(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be renamed: the files go into it, and `config.json` last."""
    mount = tmp_path / "mount"
    mount.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == mount)
    inode = mount.stat().st_ino
    for source, force in (("flat.pt", False), ("gaussian.pt", True)):
        conversion.convert(PEOPLE / source, mount, llm=str(base), force=force)
        assert mount.stat().st_ino == inode
        config = store.read_config(mount)
        assert config is not None and (config["lora"] is not None) == force
        assert not [path for path in [*mount.iterdir(), *tmp_path.iterdir()] if path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["file above", "loop", "not ours"])
def test_outputs_are_checked_before_the_work(
    kind: str, convert: Convert, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a" / "out"
    match kind:
        case "file above":
            (tmp_path / "a").write_text("")
        case "loop":
            out = tmp_path / "loop"
            out.symlink_to(out)
        case "not ours":
            monkeypatch.setattr(os, "access", lambda *_: False)

    def work(*_: Any) -> None:
        raise AssertionError("it has begun to work")

    monkeypatch.setattr(needed, "fetch_llm", work)
    with pytest.raises(TSLMError, match=rf"cannot write to {re.escape(str(out))}"):
        conversion.convert(PEOPLE / "flat.pt", out, llm=str(base))
