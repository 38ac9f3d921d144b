"""GGUF files run in llama.cpp exactly as the model folder runs in transformers; what would not is refused by name."""

import json
import shutil

import numpy as np
import pytest

from trainer.config import UserError
from trainer.export.gguf import write_gguf
from trainer.export.header import read_header
from trainer.export.llamacpp import LlamaCpp

ARCHITECTURES = ["llama", "mistral", "qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "phi4"]
PROMPTS = ["這家飯店的", "房间很小", "The quick brown", "Hello world", "def add(a", "微調"]
TEXTS = [
    "這家飯店的服務很好！", "房间 很小\n\n\n  不", "It's 12345.67 dogs'll\tgo", "naïve café Ａｌｌ 👩‍👩‍👧 🇹🇼",
    "   leading", "trailing   ", "<|im_end|>x<|eot_id|>", "a\r\n\r\nb", "\u3000全形\u3000", "I'LL WE'VE", "ﬁ ① ² x₂", "",
]  # fmt: skip
CHATS = [
    [{"role": "user", "content": "這家飯店的服務很好嗎？"}],
    [{"role": "system", "content": "你是評論分類器。"}, {"role": "user", "content": " The fox\n"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "房間\n"},
        {"role": "user", "content": "再說一次"},
    ],
]


def reference(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def chats_of(tokenizer):
    """CHATS that the model's template takes: Gemma's knows no system message."""
    return [chat for chat in CHATS if "not supported" not in tokenizer.chat_template or len(chat) != 2]


def greedy(model, ids, count):
    import torch

    # alone in its batch and without an early end, as generate(ignore_eos) would give it
    written = []
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor([ids + written])).logits[0, -1]
            written.append(int(logits.argmax()))
            if written[-1] in (model.config.eos_token_id, model.config.pad_token_id):
                break
    return written


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_llama_cpp_writes_the_same_tokens_as_transformers(architecture, tiny_model, tiny_gguf):
    model, tokenizer = reference(tiny_model(architecture))
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    prompts += [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        for chat in chats_of(tokenizer)
    ]
    # n_ctx: llama.cpp chooses Phi-3's rope factors by the context, transformers by the text's own length
    with LlamaCpp(tiny_gguf(architecture), n_ctx=256, threads=1) as engine:
        for ids in prompts:
            expected = greedy(model, ids, 20)
            found = engine.generate(ids, max_tokens=20).tokens
            stops = {tokenizer.eos_token_id, tokenizer.pad_token_id}
            assert [t for t in found if t not in stops] == [t for t in expected if t not in stops]
    assert len({tuple(greedy(model, ids, 6)) for ids in prompts}) > 3, "the model must say different things"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probabilities_agree_to_the_fourth_digit(architecture, tiny_model, tiny_gguf):
    import torch

    model, tokenizer = reference(tiny_model(architecture))
    ids = tokenizer("The quick brown fox jumps over 13 lazy dogs. 這家飯店的" * 3)["input_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    with LlamaCpp(tiny_gguf(architecture), n_ctx=256, threads=1) as engine:
        step = engine.generate(ids, max_tokens=2, top=5).top[0]
    for token, logprob in step:
        # llama.cpp keeps keys and values in float16
        assert logprob == pytest.approx(float(logits[token]), abs=5e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_texts_split_into_the_same_tokens(architecture, tiny_model, tiny_gguf):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(architecture))
    with LlamaCpp(tiny_gguf(architecture), threads=1) as engine:
        for text in TEXTS:
            # Phi-3's tokenizer puts a space before a text, but not where a chat goes on, which llama.cpp cannot
            if architecture == "phi3":
                if text.startswith("\u3000"):
                    continue  # its special tokens take this space away, llama.cpp's only those of ASCII
                text = f"<|user|>\n{text}"
            assert engine.tokenize(text) == tokenizer(text)["input_ids"], text
            plain = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert engine.tokenize(text, special=False) == plain, text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_chat_template_renders_to_the_same_bytes_and_tokens(architecture, tiny_model, tiny_gguf):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(architecture))
    with LlamaCpp(tiny_gguf(architecture), threads=1) as engine:
        for chat in chats_of(tokenizer):
            text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
            assert engine.render(chat) == text.removeprefix(tokenizer.bos_token or "")
            assert engine.tokenize(engine.render(chat)) == ids


def test_the_generation_tags_are_gone_from_the_embedded_template(tiny_gguf):
    for architecture in ARCHITECTURES:
        template = read_header(tiny_gguf(architecture)).metadata["tokenizer.chat_template"]
        assert "generation" not in template.replace("add_generation_prompt", "")


def test_the_header_says_what_the_config_says(tiny_gguf):
    qwen3 = read_header(tiny_gguf("qwen3"))
    assert qwen3.metadata["qwen3.rope.freq_base"] == 1000000.0
    assert qwen3.metadata["qwen3.attention.key_length"] == 32
    assert qwen3.metadata["tokenizer.ggml.pre"] == "qwen2"
    assert "output.weight" not in qwen3.tensors
    llama = read_header(tiny_gguf("llama"))
    assert llama.metadata["tokenizer.ggml.pre"] == "llama-bpe"
    assert llama.metadata["tokenizer.ggml.add_bos_token"] is True
    assert {"rope_freqs.weight", "output.weight", "blk.0.attn_q.bias"} <= set(llama.tensors)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_precision_files_hold_the_rounded_weights(dtype, tiny_model, tmp_path):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    out = write_gguf(tiny_model("qwen3"), tmp_path / "half.gguf", dtype)
    model, _ = reference(tiny_model("qwen3"))
    tensors = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    found = dequantize(tensors["blk.1.ffn_up.weight"].data, tensors["blk.1.ffn_up.weight"].tensor_type)
    expected = model.model.layers[1].mlp.up_proj.weight.detach().numpy()
    assert 0 < np.abs(found - expected).max() < (1e-3 if dtype == "f16" else 1e-2)
    assert tensors["output_norm.weight"].tensor_type.name == "F32"


def test_bf16_weights_are_copied_bit_for_bit(tiny_model, tmp_path):
    import torch
    from gguf import GGUFReader

    model, tokenizer = reference(tiny_model("qwen2"))
    folder = tmp_path / "bf16"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    seen = []
    out = write_gguf(folder, tmp_path / "bf16.gguf", progress=lambda done, total: seen.append((done, total)))
    tensors = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    expected = model.model.layers[0].mlp.up_proj.weight.detach().view(torch.uint16).numpy()
    assert (tensors["blk.0.ffn_up.weight"].data.view(np.uint16) == expected).all()
    assert seen[-1][0] == seen[-1][1]


def edited(tiny_model, tmp_path, architecture="qwen3", **changes):
    """A copy of the tiny model with other values in config.json."""
    folder = tmp_path / "edited"
    shutil.copytree(tiny_model(architecture), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def change_tokenizer(folder, change):
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(data)
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["FalconForCausalLM"]}, "FalconForCausalLM"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "mscale": 1.0,
                              "original_max_position_embeddings": 64}}, "mscale"),
        ({"rope_parameters": None}, "rope base"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 3, "layer_types": None}, "blk.2.attn_q.weight"),
    ],
)  # fmt: skip
def test_a_model_that_would_come_out_different_is_refused_by_name(changes, said, tiny_model, tmp_path):
    with pytest.raises(UserError, match=said) as caught:
        write_gguf(edited(tiny_model, tmp_path, **changes), tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.glob("*.gguf")) == []


@pytest.mark.parametrize(
    ("architecture", "changes", "said"),
    [
        ("qwen3moe", {"norm_topk_prob": False}, "norm_topk_prob = False"),
        ("qwen3moe", {"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\]"),
        ("gemma2", {"query_pre_attn_scalar": 99}, "query_pre_attn_scalar = 99"),
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping is missing"),
        ("gemma2", {"hidden_activation": "silu"}, "hidden_act"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "layer_types"),
        ("phi3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn'"),
        ("mistral", {"layer_types": ["sliding_attention"] * 2}, "layer_types"),
    ],
)
def test_what_llama_cpp_computes_by_itself_must_be_what_the_config_says(
    architecture, changes, said, tiny_model, tmp_path
):
    with pytest.raises(UserError, match=said):
        write_gguf(edited(tiny_model, tmp_path, architecture, **changes), tmp_path / "out.gguf")


def test_the_context_ends_with_a_window_that_llama_cpp_does_not_know(tiny_gguf):
    assert read_header(tiny_gguf("mistral")).context_length == 400
    assert read_header(tiny_gguf("gemma3")).context_length == 512
    assert read_header(tiny_gguf("gemma3")).metadata["gemma3.attention.sliding_window"] == 8


def test_experts_are_stacked_from_both_forms_of_file(tiny_model, tiny_gguf, tmp_path):
    """transformers holds a layer's experts in one tensor, with gate and up behind each other."""
    from gguf import GGUFReader
    from safetensors.torch import load_file, save_file

    folder = edited(tiny_model, tmp_path, "qwen3moe")
    weights = load_file(folder / "model.safetensors")
    model, _ = reference(folder)
    fused = {name: weight for name, weight in model.state_dict().items() if ".experts." in name}
    assert {weight.dim() for weight in fused.values()} == {3}
    kept = {name: weight for name, weight in weights.items() if ".experts." not in name}
    save_file({**kept, **{n: w.contiguous() for n, w in fused.items()}}, folder / "model.safetensors")
    again = {t.name: t.data for t in GGUFReader(write_gguf(folder, tmp_path / "fused.gguf")).tensors}
    for tensor in GGUFReader(tiny_gguf("qwen3moe")).tensors:
        assert (again[tensor.name] == tensor.data).all(), tensor.name
    del kept["lm_head.weight"]
    lacking = {name: weight for name, weight in weights.items() if "experts.1.up" not in name}
    save_file(lacking, folder / "model.safetensors")
    with pytest.raises(UserError, match="an expert is missing"):
        write_gguf(folder, tmp_path / "out.gguf")


def test_of_a_model_that_sees_the_language_part_is_written(tiny_model, tiny_gguf, tmp_path):
    """Gemma 3 of 4B and more: text_config, and weights under a prefix beside those of the eyes."""
    from gguf import GGUFReader
    from safetensors.torch import load_file, save_file

    folder = edited(tiny_model, tmp_path, "gemma3")
    text = json.loads((folder / "config.json").read_text())
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(whole))
    weights = load_file(folder / "model.safetensors")
    named = {name.replace("model.", "model.language_model.", 1): weight for name, weight in weights.items()}
    named["model.vision_tower.vision_model.post_layernorm.weight"] = weights["model.norm.weight"].clone()
    save_file(named, folder / "model.safetensors")
    found = {t.name: t.data for t in GGUFReader(write_gguf(folder, tmp_path / "out.gguf")).tensors}
    expected = {t.name: t.data for t in GGUFReader(tiny_gguf("gemma3")).tensors}
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in found)


def test_a_sentencepiece_tokenizer_with_other_merges_is_refused(tiny_model, tmp_path):
    folder = edited(tiny_model, tmp_path, "mistral")

    def drop(data):  # the merge by which transformers would not make this token, though llama.cpp would
        tokens = ["".join(pair) for pair in data["model"]["merges"]]
        data["model"]["merges"].pop(next(i for i, token in enumerate(tokens) if tokens.count(token) > 1))

    change_tokenizer(folder, drop)
    with pytest.raises(UserError, match="not those of a SentencePiece model"):
        write_gguf(folder, tmp_path / "out.gguf")


def test_a_name_does_not_change_how_tokens_strip(tiny_model, tmp_path):
    """llama.cpp takes stripping tokens from "phi-3" in a model's name."""
    folder = tmp_path / "my-Phi-3-test"
    shutil.copytree(tiny_model("qwen2"), folder)
    name = read_header(write_gguf(folder, tmp_path / "out.gguf")).metadata["general.name"]
    assert "phi-3" not in name.lower() and name.startswith("my-")


def test_q8_0_files_hold_what_ggml_rounds_to(tiny_model, tmp_path):
    from gguf import GGMLQuantizationType, GGUFReader
    from gguf.quants import dequantize, quantize

    out = write_gguf(tiny_model("qwen3moe"), tmp_path / "q8.gguf", "q8_0")
    tensors = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    model, tokenizer = reference(tiny_model("qwen3moe"))
    exact = model.model.layers[0].self_attn.o_proj.weight.detach().numpy()
    found = tensors["blk.0.attn_output.weight"]
    assert found.tensor_type == GGMLQuantizationType.Q8_0
    assert (found.data == quantize(exact, GGMLQuantizationType.Q8_0)).all()
    assert 0 < np.abs(dequantize(found.data, found.tensor_type) - exact).max() < 0.01
    assert tensors["blk.0.ffn_gate_inp.weight"].tensor_type == GGMLQuantizationType.F32
    assert tensors["blk.0.ffn_down_exps.weight"].tensor_type == GGMLQuantizationType.F16  # rows of 48
    with LlamaCpp(out, n_ctx=256, threads=1) as engine:
        assert engine.generate(tokenizer("Hello world")["input_ids"], max_tokens=4).tokens


def test_the_users_own_converter_is_run_instead(tiny_model, tmp_path, monkeypatch):
    script = tmp_path / "llama.cpp" / "convert_hf_to_gguf.py"
    script.parent.mkdir()
    script.write_text(
        "import sys\n"
        "if 'qwen3' in sys.argv[1]: sys.exit('ValueError: not known here')\n"
        "open(sys.argv[sys.argv.index('--outfile') + 1], 'w').write(' '.join(sys.argv[-2:]))\n"
    )
    monkeypatch.setenv("LLAMA_CPP_DIR", str(script.parent))
    out = write_gguf(tiny_model("qwen2"), tmp_path / "out.gguf", "f16")
    assert out.read_text() == "--outtype f16"
    with pytest.raises(UserError, match=r"convert_hf_to_gguf.py: ValueError: not known here; see the log"):
        write_gguf(tiny_model("qwen3"), tmp_path / "out.gguf")
    monkeypatch.setenv("LLAMA_CPP_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="holds no convert_hf_to_gguf"):
        write_gguf(tiny_model("qwen2"), tmp_path / "out.gguf")


def test_what_a_killed_export_left_is_removed(tiny_model, tmp_path):
    left = tmp_path / ".out.gguf.4194305.part"  # beyond the largest process number
    left.write_bytes(b"half")
    write_gguf(tiny_model("qwen2"), tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_rope_settings_of_older_transformers_are_read(tiny_model, tmp_path):
    changes = {
        "rope_parameters": None,
        "rope_theta": 12345.0,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    }
    header = read_header(write_gguf(edited(tiny_model, tmp_path, **changes), tmp_path / "out.gguf"))
    assert header.metadata["qwen3.rope.freq_base"] == 12345.0
    assert header.metadata["qwen3.rope.scaling.type"] == "linear"
    assert header.metadata["qwen3.rope.scaling.factor"] == 4.0


def test_an_unknown_pre_tokenizer_is_refused_by_name(tiny_model, tmp_path):
    folder = edited(tiny_model, tmp_path)

    def other_regex(data):
        data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\s+"

    change_tokenizer(folder, other_regex)
    with pytest.raises(UserError, match=r"pre-tokenizer [0-9a-f]{12} .*qwen2"):
        write_gguf(folder, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("normalizer", {"type": "Lowercase"}, "Lowercase"),
        ("model", {"type": "Unigram", "vocab": []}, "Unigram"),
    ],
)
def test_a_tokenizer_that_llama_cpp_cannot_follow_is_refused(key, value, said, tiny_model, tmp_path):
    folder = edited(tiny_model, tmp_path)
    change_tokenizer(folder, lambda data: data.__setitem__(key, value))
    with pytest.raises(UserError, match=said):
        write_gguf(folder, tmp_path / "out.gguf")


def test_more_tokens_than_rows_of_the_embedding_are_refused(tiny_model, tmp_path):
    from transformers import AutoTokenizer

    folder = edited(tiny_model, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<new{i}>" for i in range(9)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="no row in the embedding"):
        write_gguf(folder, tmp_path / "out.gguf")


def test_smollm_tokenizers_split_the_same(tiny_model, tmp_path):
    from transformers import AutoTokenizer

    folder = edited(tiny_model, tmp_path)
    digits = {"type": "Digits", "individual_digits": True}
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = {"type": "Sequence", "pretokenizers": [digits, gpt2]}
    change_tokenizer(folder, lambda data: data.__setitem__("pre_tokenizer", steps))
    out = write_gguf(folder, tmp_path / "out.gguf")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with LlamaCpp(out, threads=1) as engine:
        for text in TEXTS:
            assert engine.tokenize(text) == tokenizer(text)["input_ids"], text


def test_a_missing_or_cut_shard_is_named(tiny_model, tmp_path):
    folder = edited(tiny_model, tmp_path)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[:-100])
    with pytest.raises(UserError, match=f"{shards[1].name}.*ends after the file"):
        write_gguf(folder, tmp_path / "out.gguf")
    shards[1].unlink()
    with pytest.raises(UserError, match=f"{shards[1].name}: no such file"):
        write_gguf(folder, tmp_path / "out.gguf")


def test_an_index_that_points_outside_the_folder_is_refused(tiny_model, tmp_path):
    folder = edited(tiny_model, tmp_path)
    index = {"weight_map": {"model.norm.weight": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="outside the model's folder"):
        write_gguf(folder, tmp_path / "out.gguf")


def test_values_beyond_f16_are_refused_not_turned_into_infinity(tiny_model, tmp_path):
    import torch

    model, tokenizer = reference(tiny_model("qwen2"))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    model.save_pretrained(tmp_path / "large")
    tokenizer.save_pretrained(tmp_path / "large")
    with pytest.raises(UserError, match=r"blk.0.ffn_up.weight.*f16"):
        write_gguf(tmp_path / "large", tmp_path / "out.gguf", "f16")
    assert not (tmp_path / "out.gguf").exists()
    assert list(tmp_path.glob(".*.part")) == []


def test_a_failed_write_leaves_the_older_file(tiny_model, tmp_path, monkeypatch):
    out = tmp_path / "out.gguf"
    out.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        write_gguf(tiny_model("qwen2"), out, progress=full)
    assert out.read_bytes() == b"old"
    assert list(tmp_path.glob(".*.part")) == []
