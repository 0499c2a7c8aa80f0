"""Settings that a base LLM's config may have, and which must come out as transformers has them.

`data/people/make.py` computes transformers' logits for them, `test_base_folders.py` compares.
"""

from typing import Any

PIECES = ("What a long question about nothing in particular that is, sixty letters at least!", "")
FORCED = [65, 66, 67]
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0}
FLAT = {"rope_scaling": None, "rope_theta": 10000.0, "max_position_embeddings": 128}
# By name: the kind of model, and changes of tiny's config.
HONOURED: dict[str, tuple[str, dict[str, Any]]] = {
    "plain llama": ("llama", {}),
    "plain gemma": ("gemma", {}),
    "swish": ("llama", {"hidden_act": "swish"}),
    "linear": ("llama", FLAT | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "older spelling": ("llama", FLAT | {"rope_scaling": {"type": "linear", "factor": 3.0}}),
    "rope_type beside type": (
        "llama", FLAT | {"rope_scaling": {"rope_type": "linear", "type": "yarn", "factor": 3.0}}
    ),
    "yarn": ("llama", FLAT | {"rope_scaling": YARN}),
    "yarn, attention_factor": ("llama", FLAT | {"rope_scaling": YARN | {"attention_factor": 1.7}}),
    "yarn, no original length": ("llama", FLAT | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
    "yarn, mscale alone": ("llama", FLAT | {"rope_scaling": YARN | {"mscale": 0.5}}),
    "yarn, both mscales": ("llama", FLAT | {"rope_scaling": YARN | {"mscale": 0.9, "mscale_all_dim": 0.4}}),
    "original length at the top": ("llama", FLAT | {"rope_scaling": YARN, "original_max_position_embeddings": 16}),
    "rope_parameters": ("llama", FLAT | {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "both rope tables": (
        "llama",
        FLAT | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}, "rope_parameters": {"rope_theta": 500.0}},
    ),
    "all sliding": ("gemma", {"layer_types": ["sliding_attention"] * 7}),
    "all full": ("gemma", {"layer_types": ["full_attention"] * 7}),
    "every second full": (
        "gemma", {"layer_types": ["sliding_attention", "full_attention"] * 3 + ["sliding_attention"]}
    ),
    "pattern": ("gemma", {"layer_types": None, "sliding_window_pattern": 3}),
    "nested rope": (
        "gemma",
        {"rope_theta": None, "rope_local_base_freq": None, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 300.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 90.0},
        }},
    ),
}  # fmt: skip
