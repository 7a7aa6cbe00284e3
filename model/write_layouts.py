"""Owns: the folders of test/golden/layouts, one tiny random model in every layout that the engine reads.

usage: python3 write_layouts.py FOLDER

A folder has config.json and model.safetensors as its publisher would write them, and for the tests:
  cases.json            logits of the dequantised weights, in float64
  matrices.json         for every matrix its rows and columns, the CRC-32 of its dequantised fp32 values, row by row,
                        and whether the columns of a group stand together
  expected.safetensors  where the engine requantises (column groups out of order): some matrices in full
"""

import json
import struct
import sys
import zlib
from pathlib import Path

import numpy as np

import layouts
from recurrent import Recurrent

DTYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "uint32": "U32"}

CONFIG = {
    "architectures": ["BailingMoeLinearV2ForCausalLM"],
    "model_type": "bailing_moe_linear",
    "hidden_act": "silu",
    "score_function": "sigmoid",
    "norm_topk_prob": True,
    "router_dtype": "fp32",
    "moe_router_enable_expert_bias": True,
    "use_rmsnorm": True,
    "use_qk_norm": True,
    "use_bias": False,
    "use_qkv_bias": False,
    "tie_word_embeddings": False,
    "rope_scaling": None,
    "rms_norm_eps": 1e-06,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 32768,
    "partial_rotary_factor": 0.5,
    "torch_dtype": "bfloat16",
    "eos_token_id": 0,
    "pad_token_id": 0,
    "vocab_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "layer_group_size": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 192,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "num_experts": 8,
    # Every expert runs for every token: a choice between two that nearly tie would drown what a layout does.
    "num_experts_per_tok": 8,
    "n_group": 4,
    "topk_group": 4,
    "group_norm_size": 2,
    "linear_silu": False,
    "rope_theta": 1000000,
}


def write_safetensors(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    for name, array in arrays.items():
        if isinstance(tensors[name], layouts.Bf16):
            dtype = "BF16"
        elif isinstance(tensors[name], layouts.Fp8):
            dtype = "F8_E4M3"
        else:
            dtype = DTYPES[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.tobytes())


def original():
    """Matrices and vectors of the model before it is stored, fp32, under their names without ".weight"."""
    random = np.random.default_rng(20)
    matrices, vectors = {}, {}

    def matrix(name, rows, cols, scale=1.0):
        matrices[name] = np.float32(random.normal(0, scale / np.sqrt(cols), (rows, cols)))

    def norm(name, length):
        vectors[name] = np.float32(1 + 0.1 * random.normal(size=length))

    def mlp(name, width):
        matrix(name + ".gate_proj", width, hidden)
        matrix(name + ".up_proj", width, hidden)
        matrix(name + ".down_proj", hidden, width)

    hidden, width = CONFIG["hidden_size"], CONFIG["head_dim"]
    heads, kv_heads = CONFIG["num_attention_heads"], CONFIG["num_key_value_heads"]
    matrix("model.word_embeddings", CONFIG["vocab_size"], hidden, 8.0)
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        softmax = (layer + 1) % CONFIG["layer_group_size"] == 0
        norm(name + ".input_layernorm.weight", hidden)
        norm(name + ".post_attention_layernorm.weight", hidden)
        matrix(name + ".attention.query_key_value", (heads + 2 * (kv_heads if softmax else heads)) * width, hidden)
        norm(name + ".attention.query_layernorm.weight", width)
        norm(name + ".attention.key_layernorm.weight", width)
        if not softmax:
            matrix(name + ".attention.g_proj", heads * width, hidden)
            norm(name + ".attention.g_norm.weight", heads * width)
        matrix(name + ".attention.dense", hidden, heads * width)
        if layer < CONFIG["first_k_dense_replace"]:
            mlp(name + ".mlp", CONFIG["intermediate_size"])
            continue
        matrix(name + ".mlp.gate", CONFIG["num_experts"], hidden, 2.0)
        vectors[name + ".mlp.gate.expert_bias"] = np.float32(0.05 * random.normal(size=CONFIG["num_experts"]))
        for expert in range(CONFIG["num_experts"]):
            mlp(f"{name}.mlp.experts.{expert}", CONFIG["moe_intermediate_size"])
        mlp(name + ".mlp.shared_experts", CONFIG["moe_shared_expert_intermediate_size"])
    norm("model.norm.weight", hidden)
    matrix("lm_head", CONFIG["vocab_size"], hidden, 2.0)
    return matrices, vectors


def is_linear(name):
    """What quantisers call a Linear module: not the embedding, not the router."""
    return name != "model.word_embeddings" and not name.endswith(".mlp.gate")


def no_quantisation(matrices):
    return {}, {name: layouts.plain(matrix) for name, matrix in matrices.items()}


def fp8(matrices):
    """Which modules are quantised shows in the tensors alone; the g_proj of linear layers is left as it is."""
    config = {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                      "weight_block_size": [128, 128]}}
    stored = {}
    for name, matrix in matrices.items():
        quantised = is_linear(name) and name != "lm_head" and not name.endswith("g_proj")
        stored[name] = layouts.fp8_blocks(matrix) if quantised else layouts.plain(matrix)
    return config, stored


def pack_quantized(matrices):
    """Every strategy, number of bits and sort of target in one file."""
    def group(targets, bits, size, symmetric=True, actorder=None):
        return {"targets": targets, "input_activations": None, "output_activations": None,
                "weights": {"num_bits": bits, "type": "int", "symmetric": symmetric, "group_size": size or None,
                            "strategy": "group" if size else "channel", "block_structure": None, "dynamic": False,
                            "actorder": actorder, "observer": "minmax", "observer_kwargs": {}}}

    config = {"quantization_config": {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "global_compression_ratio": None, "kv_cache_scheme": None,
        "config_groups": {
            "group_0": group(["Linear"], 4, 32),
            "group_1": group(["re:.*\\.shared_experts\\..*"], 8, 0),
            "group_2": group(["model.layers.0.attention.dense"], 4, 128, symmetric=False),
            "group_3": group(["re:.*layers\\.0\\.mlp\\.down_proj$"], 8, 64, symmetric=False),
            "group_4": group(["re:.*layers\\.0\\.attention\\.(dense|query_key_value)$"], 4, 32, actorder="group"),
            "group_5": group(["re:.*\\.experts\\.7\\.down_proj$"], 4, 0),
            "group_6": group(["re:.*\\.experts\\.6\\..*"], 4, 32, actorder="weight"),
        },
        "ignore": ["lm_head", "re:.*mlp\\.gate$", "model.layers.1.attention.dense"],
    }}
    stored = {}
    for name, matrix in matrices.items():
        if not is_linear(name) or name in ("lm_head", "model.layers.1.attention.dense"):
            stored[name] = layouts.plain(matrix)
        elif name == "model.layers.0.attention.dense":
            stored[name] = layouts.pack_quantized(matrix, 4, 128, symmetric=False)
        elif ".shared_experts." in name:
            stored[name] = layouts.pack_quantized(matrix, 8, 0)
        elif name == "model.layers.0.mlp.down_proj":
            stored[name] = layouts.pack_quantized(matrix, 8, 64, symmetric=False)
        elif name == "model.layers.0.attention.query_key_value":
            stored[name] = layouts.pack_quantized(matrix, 4, 32, order_seed=1)
        elif name.endswith(".experts.7.down_proj"):
            stored[name] = layouts.pack_quantized(matrix, 4, 0)
        else:
            stored[name] = layouts.pack_quantized(matrix, 4, 32)
    return config, stored


def gptq_config(**fields):
    return {"quantization_config": {"quant_method": "gptq", "bits": 4, "damp_percent": 0.01, "static_groups": False,
                                    "true_sequential": True, "lm_head": False, **fields}}


def gptq(matrices):
    """The classic file: symmetric, zero points stored minus one, no checkpoint_format."""
    config = gptq_config(group_size=32, desc_act=False, sym=True)
    return config, {
        name: layouts.gptq(matrix, 4, 32, True, 1) if is_linear(name) and name != "lm_head" else layouts.plain(matrix)
        for name, matrix in matrices.items()
    }


def gptq_v2(matrices):
    """Zero points as they are, and groups of 64 that do not divide the 32 columns of an expert's down_proj."""
    config = gptq_config(group_size=64, desc_act=False, sym=False, checkpoint_format="gptq_v2", pack_dtype="int32")
    return config, {
        name: layouts.gptq(matrix, 4, 64, False, 2) if is_linear(name) and name != "lm_head" else layouts.plain(matrix)
        for name, matrix in matrices.items()
    }


def gptq_desc_act(matrices):
    config = gptq_config(group_size=32, desc_act=True, sym=False, checkpoint_format="gptq")
    return config, {
        name: layouts.gptq(matrix, 4, 32, False, 1, order_seed=seed)
        if is_linear(name) and name != "lm_head"
        else layouts.plain(matrix)
        for seed, (name, matrix) in enumerate(matrices.items())
    }


def gptq_8bit(matrices):
    """One group a row, the head quantised too, and exceptions by pattern."""
    config = gptq_config(bits=8, group_size=-1, desc_act=False, sym=True, checkpoint_format="gptq", lm_head=True,
                         dynamic={"-:.*\\.shared_experts\\..*": {},
                                  "+:model\\.layers\\.1\\.mlp\\.experts\\.[0-3]\\..*": {"bits": 4, "group_size": 32}})
    stored = {}
    for name, matrix in matrices.items():
        if not is_linear(name) or ".shared_experts." in name:
            stored[name] = layouts.plain(matrix)
        elif any(f".experts.{expert}." in name for expert in range(4)):
            stored[name] = layouts.gptq(matrix, 4, 32, True, 1)
        else:
            stored[name] = layouts.gptq(matrix, 8, -1, True, 1)
    return config, stored


def mlx(matrices, bits, group, overrides):
    """Everything is quantised whose columns are whole groups; the experts of a layer are one stack, and the router has
    a name and a width of its own."""
    quantization = {"group_size": group, "bits": bits, "mode": "affine", **overrides}
    quantization["model.layers.1.mlp.gate.gate_proj"] = {"group_size": 64, "bits": 8}
    config = {"quantization": quantization, "quantization_config": quantization}
    stored = {}
    modules = {name: matrix for name, matrix in matrices.items() if ".mlp.experts." not in name}
    for part in ("gate_proj", "up_proj", "down_proj"):
        experts = range(CONFIG["num_experts"])
        modules[f"model.layers.1.mlp.switch_mlp.{part}"] = np.stack(
            [matrices[f"model.layers.1.mlp.experts.{expert}.{part}"] for expert in experts]
        )
    for name, matrix in modules.items():
        name = name + ".gate_proj" if name.endswith(".mlp.gate") else name
        rule = quantization.get(name, {"group_size": group, "bits": bits})
        if rule is False or matrix.shape[-1] % rule["group_size"] != 0:
            stored[name] = layouts.plain(matrix)
        else:
            stored[name] = layouts.mlx_affine(matrix, rule["bits"], rule["group_size"])
    return config, stored


def mlx_4bit(matrices):
    return mlx(matrices, 4, 64, {"model.layers.0.attention.dense": {"group_size": 128, "bits": 8},
                                 "model.layers.0.attention.g_proj": False})


def mlx_8bit(matrices):
    return mlx(matrices, 8, 32, {})


def split_stacks(values):
    """Values under the names of the architecture, whatever the file calls them."""
    out = {}
    for name, value in values.items():
        if ".switch_mlp." in name:
            for expert, matrix in enumerate(value):
                out[name.replace("switch_mlp", f"experts.{expert}")] = matrix
        else:
            out[name.removesuffix(".gate_proj") if name.endswith(".mlp.gate.gate_proj") else name] = value
    return out


def write_layout(folder, layout, matrices, vectors, cases):
    config, stored = layout(matrices)
    tensors = {name + suffix: array for name, (parts, _) in stored.items() for suffix, array in parts.items()}
    values = split_stacks({name: value for name, (_, value) in stored.items()})
    weights = {name + ".weight": value for name, value in values.items()}
    for name, vector in vectors.items():
        # Norms are bf16 in every published file; the bias that chooses experts stays fp32.
        is_bias = name.endswith(".expert_bias")
        tensors[name] = vector if is_bias else layouts.bf16(vector).view(layouts.Bf16)
        weights[name] = vector if is_bias else layouts.widen(layouts.bf16(vector))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}, indent=1) + "\n")
    write_safetensors(folder / "model.safetensors", tensors)
    model = Recurrent(CONFIG, weights)
    golden = {"model": folder.name, "dtype": "float64", "cases": [model.case(ids, following) for ids, following in cases]}
    (folder / "cases.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    inexact = [name for name, (parts, _) in stored.items() if is_out_of_order(parts)]
    lines = []
    for name, value in values.items():
        crc = zlib.crc32(np.ascontiguousarray(value).tobytes())
        lines.append(f"{json.dumps(name)}: {json.dumps([*value.shape, crc, name not in inexact])}")
    (folder / "matrices.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if inexact:
        # The largest and two small ones say enough about the rest.
        inexact.sort(key=lambda name: values[name].size)
        shown = dict.fromkeys(inexact[:2] + inexact[-1:])
        write_safetensors(folder / "expected.safetensors", {name: values[name] for name in shown})


def is_out_of_order(parts):
    return any(np.any(np.diff(parts[name]) < 0) for name in (".g_idx", ".weight_g_idx") if name in parts)


LAYOUTS = {
    "bf16": no_quantisation,
    "fp8": fp8,
    "pack-quantized": pack_quantized,
    "gptq": gptq,
    "gptq-v2": gptq_v2,
    "gptq-desc-act": gptq_desc_act,
    "gptq-8bit": gptq_8bit,
    "mlx-4bit": mlx_4bit,
    "mlx-8bit": mlx_8bit,
}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    matrices, vectors = original()
    random = np.random.default_rng(21)
    # Short, and over two chunks of 64.
    cases = [([int(id) for id in random.integers(1, 64, length)], int(random.integers(1, 64))) for length in (3, 140)]
    for name, layout in LAYOUTS.items():
        write_layout(Path(sys.argv[1]) / name, layout, matrices, vectors, cases)
        print(name)


if __name__ == "__main__":
    main()
