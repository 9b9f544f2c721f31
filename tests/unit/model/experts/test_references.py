"""Every expert equals its formula, written anew in numpy float64 with loops over fields and layers.

Shapes: B rows, F fields, K dims a field.
"""

import numpy as np
import pytest
import torch

from dmoe.model.experts import build_expert

B, F, K = 3, 4, 6


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)


def layer_norm(p, name, x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu_stack(p, name, x, layers):
    for index in range(layers):
        x = relu(linear(p, f"{name}.{2 * index}", x))
    return x


def crossnet(p, x):
    x0 = xl = x.reshape(B, -1)
    for layer in range(2):
        xl = x0 * (xl @ p[f"cross.kernels.{layer}"].T + p[f"cross.bias.{layer}"][:, 0]) + xl
    return xl


def crossnet_low_rank(p, x):
    x0 = xl = x.reshape(B, -1)
    for layer in range(2):
        product = p[f"cross.W_kernels.{layer}"] @ p[f"cross.V_kernels.{layer}"]
        xl = x0 * (xl @ product.T + p[f"cross.bias.{layer}"]) + xl
    return xl


def gdcn(p, x):
    x0 = xl = x.reshape(B, -1)
    for layer in range(2):
        xl = x0 * linear(p, f"crosses.{layer}", xl) * sigmoid(linear(p, f"gates.{layer}", xl)) + xl
    return xl


def cin(p, x):
    pooled, xl = [], x
    for layer in range(3):
        xl = np.einsum("hij,bik,bjk->bhk", p[f"weights_HPF.{layer}"], xl, x)
        pooled.append(xl.sum(-1))
    return np.concatenate(pooled, 1)


def mlp(p, x):
    return relu_stack(p, "layers", x.reshape(B, -1), 2)


def mlp_silu_norm(p, x):
    x = x.reshape(B, -1)
    for index in (0, 3):
        x = layer_norm(p, f"layers.{index + 1}", linear(p, f"layers.{index}", x))
        x = x * sigmoid(x)
    return x


def mask_block(p, name, e, x):
    mask = linear(p, f"{name}.mask.2", relu(linear(p, f"{name}.mask.0", e)))
    return relu(layer_norm(p, f"{name}.hidden.1", linear(p, f"{name}.hidden.0", mask * x)))


def masknet(p, x):
    e, normed = x.reshape(B, -1), layer_norm(p, "norm", x).reshape(B, -1)
    return np.concatenate([mask_block(p, f"blocks.{index}", e, normed) for index in range(2)], 1)


def masknet_serial(p, x):
    e, h = x.reshape(B, -1), layer_norm(p, "norm", x).reshape(B, -1)
    for index in range(2):
        h = mask_block(p, f"blocks.{index}", e, h)
    return h


def fuse(p, a, c, heads):
    out = linear(p, "linear_a", a) + linear(p, "linear_c", c)
    wide_a, wide_c = a.shape[1] // heads, c.shape[1] // heads
    w = p["bilinear.weight"].reshape(-1, heads, wide_a, wide_c)
    for h in range(heads):
        a_h, c_h = a[:, h * wide_a : (h + 1) * wide_a], c[:, h * wide_c : (h + 1) * wide_c]
        for o in range(out.shape[1]):
            out[:, o] += np.einsum("bi,ij,bj->b", a_h, w[o, h], c_h)
    return out


def finalmlp(p, x):
    e = x.reshape(B, -1)
    return fuse(p, relu_stack(p, "stream_a", e, 2), relu_stack(p, "stream_c", e, 1), heads=2)


def finalmlp_gated(p, x):
    e, context = x.reshape(B, -1), np.concatenate([x[:, 2], x[:, 0]], 1)
    gate = 2 * sigmoid(linear(p, "gate_a.gate.2", relu(linear(p, "gate_a.gate.0", context))))
    return fuse(p, relu_stack(p, "stream_a", gate * e, 2), relu_stack(p, "stream_c", e, 1), heads=2)


def ipnn(p, x):
    pairs = [(x[:, i] * x[:, j]).sum(1) for i in range(F) for j in range(i + 1, F)]
    return relu_stack(p, "layers", np.concatenate([x.reshape(B, -1), np.stack(pairs, 1)], 1), 2)


def fwfm(p, x):
    weights, out = iter(p["weight_P"]), np.zeros((B, K))
    for i in range(F):
        for j in range(i + 1, F):
            out += next(weights) * x[:, i] * x[:, j]
    return out


def gwpfm(p, x, group=(0, 1, 1, 1)):
    r, out = (p["weight_GG"] + p["weight_GG"].T) / 2, np.zeros((B, K // 2))
    part = x.reshape(B, F, 2, K // 2)
    for i in range(F):
        for j in range(i + 1, F):
            out += r[group[i], group[j]] * part[:, i, group[j]] * part[:, j, group[i]]
    return out


def gwpfm_halves(p, x):
    return gwpfm(p, x, group=(0, 0, 1, 1))


def wukong(p, x):
    for index in range(2):
        name = f"layers.{index}"
        gram = x @ x.transpose(0, 2, 1)
        products = np.einsum("bij,rj->bir", gram, p[f"{name}.compress.weight"]).reshape(B, -1)
        normed = layer_norm(p, f"{name}.fm.0", products)
        fm = linear(p, f"{name}.fm.2", relu_stack(p, f"{name}.fm.1", normed, 2)).reshape(B, 2, K)
        compressed = np.einsum("of,bfk->bok", p[f"{name}.linear.weight"], x)
        residual = np.einsum("of,bfk->bok", p[f"{name}.residual.weight"], x) if f"{name}.residual.weight" in p else x
        x = layer_norm(p, f"{name}.norm", np.concatenate([fm, compressed], 1) + residual)
    return x.reshape(B, -1)


CASES = [
    (crossnet, "crossnet", {"num_layers": 2}),
    (crossnet_low_rank, "crossnet", {"num_layers": 2, "low_rank": 3}),
    (gdcn, "gdcn", {"num_layers": 2}),
    (cin, "cin", {"layer_maps": [3, 2, 4]}),
    (mlp, "mlp", {"hidden": [5, 4]}),
    (mlp_silu_norm, "mlp", {"hidden": [5, 4], "activation": "silu", "layer_norm": True}),
    (masknet, "masknet", {"num_blocks": 2, "block_dim": 5, "mask_ratio": 0.5}),
    (masknet_serial, "masknet", {"num_blocks": 2, "block_dim": 5, "mode": "serial"}),
    (finalmlp, "finalmlp", {"hidden_a": [7, 6], "hidden_c": [4], "num_heads": 2, "fused_dim": 3}),
    (finalmlp_gated, "finalmlp", {"hidden_a": [7, 6], "hidden_c": [4], "num_heads": 2, "fused_dim": 3, "gate_fields_a": [2, 0]}),
    (ipnn, "ipnn", {"hidden": [5, 4]}),
    (fwfm, "fwfm", {}),
    (gwpfm, "gwpfm", {"groups": [1, 3]}),
    (gwpfm_halves, "gwpfm", {}),
    (wukong, "wukong", {"fm_fields": 2, "linear_fields": 3, "rank": 2, "hidden": [5, 4]}),
]


@pytest.mark.parametrize(("reference", "kind", "options"), CASES, ids=[case[0].__name__ for case in CASES])
def test_expert_equals_its_definition_in_numpy(reference, kind, options):
    generator = torch.Generator().manual_seed(0)
    expert = build_expert(kind, F, K, **options).double()
    with torch.no_grad():
        for parameter in expert.parameters():  # also those that start at 0 or 1, where a forgotten one would not show
            parameter.normal_(0, 0.5, generator=generator)
    x = np.random.default_rng(0).normal(size=(B, F, K))
    out = expert(torch.from_numpy(x)).detach().numpy()
    assert out.shape == (B, expert.out_dim)
    parameters = {name: parameter.detach().numpy() for name, parameter in expert.named_parameters()}
    np.testing.assert_allclose(out, reference(parameters, x), rtol=1e-10, atol=1e-12)
