"""From a name to a model in memory."""

import json
import logging
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

import mlx.nn as nn

from mlx_tslm import calibration
from mlx_tslm.errors import TSLMError
from mlx_tslm.models import language_model as lm
from mlx_tslm.models import text_config
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.config import FlamingoConfig, ModelConfig
from mlx_tslm.models.flamingo import FlamingoModel
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tokenizer import generation_config, read_tokenizer
from mlx_tslm.models.weights import read_weights, weight_files
from mlx_tslm.sampling import DEFAULT, Sampling
from mlx_tslm.schema import shown
from mlx_tslm.suggest import did_you_mean

if TYPE_CHECKING:
    from mlx_tslm.stages import Stage


BACKENDS = ("mlx", "torch", "torch-uncached")
"""What computes: MLX; PyTorch, one answer at a time; PyTorch, the whole prompt again for every token."""

_log = logging.getLogger(__name__)
RUN = "curriculum.json"
"""What makes a folder that of a training: it names the stages, a folder each."""

_HEAD = "language_model.lm_head."


@overload
def load(source: str | Path) -> CausalModel: ...
@overload
def load(source: str | Path, backend: str, dtype: str | None = None) -> BaseModel: ...


def load(source: str | Path, backend: str = "mlx", dtype: str | None = None) -> BaseModel:
    """Load a model.

    Args:
        source: a converted folder, or that of a training, whose last model is taken; or anything that
            `mlx-tslm convert` takes ("demo", "stage5", "OpenTSLM/llama-3.2-1b-ecg-sp", a recipe), which is
            converted on first use into the cache.
        backend: of `BACKENDS`.
        dtype: of the LLM in PyTorch, such as "float32"; that of the folder where None. MLX takes the folder's.

    Returns:
        The model, with `.tokenizer` and `.stage`. MLX reads its weights lazily.

    Raises:
        TSLMError: there is no such model or backend, PyTorch is not installed, or the folder is no converted one.
    """
    check(source, backend)
    if backend != "mlx":
        from mlx_tslm import torch_backend
    path = folder_of(source)
    if backend == "mlx":
        return load_folder(path)
    config, tokenizer, stage, files = _read_folder(path)
    weights = torch_backend.read_weights(files)
    model_class = torch_backend.model_class(config)
    model = model_class(config, tokenizer, stage, weights, dtype, cached=backend == "torch")
    model.sampling, model.calibrations = read_sampling(path), MappingProxyType(calibration.read(path))
    model.know_tokens()
    return model


load_pretrained = load


def check(source: str | Path, backend: str = "mlx") -> None:
    """See that there is such a model and such a backend; nothing is fetched, converted or loaded.

    Raises:
        TSLMError: as `load`.
    """
    if backend not in BACKENDS:
        raise TSLMError(
            f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}{did_you_mean(backend, BACKENDS)}"
        )
    if backend != "mlx":
        from mlx_tslm import torch_backend  # noqa: F401 - it may not be installed
    if not Path(source).is_dir():
        from mlx_tslm import conversion

        conversion.check_source(str(source))
    elif not (trained_model(Path(source)) / "config.json").is_file():
        raise TSLMError(f"{source} is not a converted model; make one with `mlx-tslm convert`")


def trained_model(path: Path) -> Path:
    """The model of a training's folder, that of its last stage; any other folder itself.

    Raises:
        TSLMError: the training has not come to its end.
    """
    try:
        names = json.loads((path / RUN).read_text("utf-8"))["stages"]
        model = path / str(names[-1]) / "model"
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return path
    if not (model / "config.json").exists():
        raise TSLMError(f"{path} holds a training that has not come to its end; the same `train` command goes on")
    return model


def folder_of(source: str | Path) -> Path:
    """The folder that `load` reads; what is not converted yet is.

    Raises:
        TSLMError: there is no such model.
    """
    path = Path(source)
    if path.is_dir():
        return trained_model(path)
    from mlx_tslm import conversion

    return conversion.ensure_converted(str(source))


def load_folder(path: Path) -> CausalModel:
    """Load a converted folder: `config.json`, the safetensors that its index names, and the tokenizer's files.

    Raises:
        TSLMError: a file is missing or damaged, or does not fit the others (says which).
    """
    config, tokenizer, stage, _ = _read_folder(path)
    weights = read_weights(path)
    config.text_config["tie_word_embeddings"] = not any(name.startswith(_HEAD) for name in weights)
    _check_depths(path, config, weights)
    model = build(config, tokenizer, stage)
    model.sampling, model.calibrations = read_sampling(path), MappingProxyType(calibration.read(path))
    _shape_like(model, config, weights)
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise TSLMError(
            f"{path}: the weights do not fit config.json ({said[:200]}); convert the checkpoint again"
        ) from None
    model.know_tokens()
    model.eval()
    _log.info(f"loaded {path}: {config.model_type}, answers sampled from {model.sampling}")
    return model


def _check_depths(path: Path, config: ModelConfig, weights: dict[str, Any]) -> None:
    """Compare the numbers of layers with those in the weights before so many are built."""
    for field, part, stated in (
        ("text_config.num_hidden_layers", "language_model.model", config.text_config["num_hidden_layers"]),
        ("encoder_config.num_hidden_layers", "encoder", config.encoder_config.num_hidden_layers),
    ):
        prefix = f"{part}.layers."
        numbers = {name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)}
        if len(numbers) != stated:
            raise TSLMError(
                f"{path}/config.json: {field} is {stated}, but the weights have {len(numbers)} layers; convert the "
                "checkpoint again"
            )


def build(config: ModelConfig, tokenizer: Any, stage: "Stage | None" = None) -> CausalModel:
    """The model that a config describes, with fresh weights."""
    if isinstance(config, FlamingoConfig):
        return FlamingoModel(config, tokenizer, stage)
    return SoftPromptModel(config, tokenizer, stage)


def _read_folder(path: Path) -> "tuple[ModelConfig, Any, Stage | None, list[Path]]":
    """The configuration, the tokenizer, the stage, and the files of the weights."""
    from mlx_tslm import stages
    from mlx_tslm.stages import task

    try:
        config = ModelConfig.read(json.loads((path / "config.json").read_text("utf-8")))
        text_config.read(config.text_config)
    except TSLMError as error:
        raise TSLMError(f"{path}/config.json: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise TSLMError(
            f"{path} is not a converted model (config.json: {shown(str(error), 100)}); "
            "make one with `mlx-tslm convert`"
        ) from None
    try:
        files = weight_files(path)
    except TSLMError as error:
        raise TSLMError(f"{path}: {error}; or convert the checkpoint again") from None
    own = path / task.FILE  # a task that is no published stage
    name = str(own) if own.exists() else config.stage
    try:
        stage = stages.get(name, config.leads) if name else None
    except TSLMError as error:
        raise TSLMError(f"{path}/config.json: stage or leads: {error}") from None
    return config, read_tokenizer(path, config.text_config), stage, files


def read_sampling(path: Path) -> Sampling:
    """The temperature and top-p that the base LLM's `generation_config.json` states, else those of `DEFAULT`.

    A temperature of 0 there says that answers are greedy unless asked otherwise, and counts as none.

    Raises:
        TSLMError: the file is damaged, or a value is no number or out of range.
    """
    temperature, top_p = (generation_config(path).get(name) for name in ("temperature", "top_p"))
    try:
        return Sampling(
            float(temperature) if temperature else DEFAULT.temperature,
            top_p=DEFAULT.top_p if top_p is None else float(top_p),
        )
    except (ValueError, TypeError, TSLMError) as error:
        raise TSLMError(f"{path}/generation_config.json cannot be used ({error}); mend it or remove it") from None


def _shape_like(model: CausalModel, config: ModelConfig, weights: dict[str, Any]) -> None:
    """Give the model the quantized and LoRA layers that `weights` has."""
    if config.quantization:
        nn.quantize(
            model,
            group_size=config.quantization["group_size"],
            bits=config.quantization["bits"],
            class_predicate=lambda name, _: f"{name}.scales" in weights or f"{name}.linear.scales" in weights,
        )
    if config.lora is not None and not config.lora.fused:
        lm.adapt(model.language_model, config.lora, lambda name: f"language_model.{name}.lora_a" in weights)
