"""Owns: the model's forward pass, one token after another, in float64, straight from its definition.

Must never: share code with an engine, or be made fast. It reads weights as a dictionary from a tensor's published name
to an array, and gives what test/golden stores about a prompt.
"""

import numpy as np


def rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def silu(x):
    return x / (1.0 + np.exp(-x))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def slopes(config, layer):
    """Decay of each head: a geometric sequence, which flattens with depth (form A of the specification)."""
    heads = config["num_attention_heads"]
    power = 1 << (heads.bit_length() - 1)
    base = [2.0 ** (-8.0 * (h + 1) / power) for h in range(power)]
    base += [2.0 ** (-8.0 * (h + 1) / (2 * power)) for h in range(0, 2 * power, 2)][: heads - power]
    layers = config["num_hidden_layers"]
    factor = 1.0 + 1e-5 if layers == 1 else 1.0 - layer / (layers - 1) + 1e-5
    # Engines keep the slope in fp32.
    return np.float32(np.array(base) * factor).astype(np.float64)


class Recurrent:
    def __init__(self, config, weights):
        self.config = config
        self.weights = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.width = config["head_dim"]
        self.eps = config["rms_norm_eps"]
        self.rotary = int(self.width * config["partial_rotary_factor"])
        j = np.arange(self.rotary // 2)
        # The published engines multiply a fp32 position by a fp32 frequency.
        self.frequencies = np.float32(config["rope_theta"] ** (-2.0 * j / self.rotary))

    def is_softmax(self, layer):
        group, layers = self.config["layer_group_size"], self.config["num_hidden_layers"]
        return (layer + 1) % group == 0 or layer >= layers // group * group

    def linear(self, name, x):
        return self.weights[name + ".weight"] @ x

    def rotate(self, x, position):
        angle = (np.float32(position) * self.frequencies).astype(np.float64)
        cos, sin = np.cos(angle), np.sin(angle)
        half = self.rotary // 2
        a, b = x[:, :half].copy(), x[:, half : self.rotary].copy()
        out = x.copy()
        out[:, :half] = a * cos - b * sin
        out[:, half : self.rotary] = b * cos + a * sin
        return out

    def heads_of(self, name, x, kv_heads, position):
        rows = self.linear(name + ".query_key_value", x).reshape(-1, self.width)
        q, k, v = np.split(rows, [self.heads, self.heads + kv_heads])
        q = rms_norm(q, self.weights[name + ".query_layernorm.weight"], self.eps)
        k = rms_norm(k, self.weights[name + ".key_layernorm.weight"], self.eps)
        return self.rotate(q, position) / np.sqrt(self.width), self.rotate(k, position), v

    def linear_attention(self, layer, name, x, position):
        q, k, v = self.heads_of(name, x, self.heads, position)
        decay = np.exp(-slopes(self.config, layer))
        state = self.states[layer]
        state *= decay[:, None, None]
        state += k[:, :, None] * v[:, None, :]
        out = np.einsum("ha,hab->hb", q, state).reshape(-1)
        groups = self.config["group_norm_size"]
        norm = self.weights[name + ".g_norm.weight"].reshape(groups, -1)
        normed = rms_norm(out.reshape(groups, -1), norm, self.eps).reshape(-1)
        return self.linear(name + ".dense", normed * sigmoid(self.linear(name + ".g_proj", x)))

    def softmax_attention(self, layer, name, x, position):
        q, k, v = self.heads_of(name, x, self.kv_heads, position)
        keys, values = self.caches[layer]
        keys.append(k)
        values.append(v)
        out = np.empty((self.heads, self.width))
        for head in range(self.heads):
            kv = head // (self.heads // self.kv_heads)
            scores = np.array([key[kv] for key in keys]) @ q[head]
            scores = np.exp(scores - scores.max())
            out[head] = scores / scores.sum() @ np.array([value[kv] for value in values])
        return self.linear(name + ".dense", out.reshape(-1))

    def mlp(self, name, x):
        return self.linear(name + ".down_proj", silu(self.linear(name + ".gate_proj", x)) * self.linear(name + ".up_proj", x))

    def experts(self, name, x):
        scores = sigmoid(self.linear(name + ".gate", x))
        choice = scores + self.weights[name + ".gate.expert_bias"]
        groups = choice.reshape(self.config["n_group"], -1)
        group_scores = np.sort(groups, axis=1)[:, -2:].sum(axis=1)
        # A stable sort of the negated scores lets the lower index win a tie.
        kept = np.argsort(-group_scores, kind="stable")[: self.config["topk_group"]]
        masked = np.full(groups.shape, -np.inf)
        masked[kept] = groups[kept]
        chosen = np.argsort(-masked.reshape(-1), kind="stable")[: self.config["num_experts_per_tok"]]
        total = scores[chosen].sum() + 1e-20
        out = self.mlp(name + ".shared_experts", x)
        for expert in chosen:
            weight = scores[expert] / total * self.config["routed_scaling_factor"]
            out = out + weight * self.mlp(f"{name}.experts.{expert}", x)
        return out

    def token(self, token, position):
        h = self.weights["model.word_embeddings.weight"][token]
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = rms_norm(h, self.weights[name + ".input_layernorm.weight"], self.eps)
            attention = self.softmax_attention if self.is_softmax(layer) else self.linear_attention
            h = h + attention(layer, name + ".attention", x, position)
            x = rms_norm(h, self.weights[name + ".post_attention_layernorm.weight"], self.eps)
            dense = layer < self.config["first_k_dense_replace"]
            h = h + (self.mlp(name + ".mlp", x) if dense else self.experts(name + ".mlp", x))
        return self.linear("lm_head", rms_norm(h, self.weights["model.norm.weight"], self.eps))

    def case(self, ids, following):
        """The golden case of one prompt; `following` is the token after the last one."""
        layers = range(self.config["num_hidden_layers"])
        self.states = {i: np.zeros((self.heads, self.width, self.width)) for i in layers if not self.is_softmax(i)}
        self.caches = {i: ([], []) for i in layers if self.is_softmax(i)}
        case = {"ids": ids, "next": following, "last_logits": [], "argmax": [], "margin": [], "logprob": []}
        for position, token in enumerate(ids):
            logits = self.token(token, position)
            expected = ids[position + 1] if position + 1 < len(ids) else following
            ordered = np.sort(logits)
            shifted = logits - logits.max()
            case["argmax"].append(int(np.argmax(logits)))
            case["margin"].append(float(f"{ordered[-1] - ordered[-2]:.7g}"))
            case["logprob"].append(float(f"{shifted[expected] - np.log(np.exp(shifted).sum()):.9g}"))
        case["last_logits"] = [float(f"{value:.7g}") for value in logits]
        case["state_norm"] = {
            str(i): [float(f"{np.linalg.norm(head):.9g}") for head in state] for i, state in self.states.items()
        }
        return case
