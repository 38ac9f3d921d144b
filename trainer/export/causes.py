"""Why an exported model may answer otherwise than in training, and what to do, in both languages. Used by parity."""

from __future__ import annotations

import math
from pathlib import Path

from trainer.export.architectures import read_config
from trainer.export.header import read_header
from trainer.export.rope import rope_of

EXPLAINED = {
    "template": {
        "en": "Likely cause: the chat template; llama.cpp renders another prompt than training did. Export again from "
        "the trained model's own chat_template.jinja.",
        "zh-TW": "可能原因：對話模板；llama.cpp 產生的提示與訓練時不同。請用訓練後模型自己的 chat_template.jinja 重新匯出。",
    },
    "bos": {
        "en": "Likely cause: the BOS token; it is missing or doubled at the start of the prompt. Check add_bos_token "
        "and the chat template, then export again.",
        "zh-TW": "可能原因：BOS 標記；提示開頭少了或多了一個。請檢查 add_bos_token 與對話模板後重新匯出。",
    },
    "tokenizer": {
        "en": "Likely cause: the tokenizer; the same text is split into other tokens. Export again from the trained "
        "model's tokenizer.json; text that is not in Unicode form NFC differs as well.",
        "zh-TW": "可能原因：分詞器；相同文字被切成不同的 token。請用訓練後模型的 tokenizer.json 重新匯出；不是 Unicode NFC 形式的文字也會不同。",
    },
    "rope": {
        "en": "Likely cause: the rope base in the GGUF file is not the one of config.json. Export again.",
        "zh-TW": "可能原因：GGUF 檔中的 rope base 與 config.json 不同。請重新匯出。",
    },
    "dtype": {
        "en": "Likely cause: the file keeps fewer digits than the weights have. Export with dtype auto, without quantizing.",
        "zh-TW": "可能原因：檔案的精度低於權重。請以 dtype auto 匯出，不要量化。",
    },
    "stop": {
        "en": "Likely cause: the stop tokens; one side goes on where the other ends. Check eos_token_id in "
        "generation_config.json, then export again.",
        "zh-TW": "可能原因：結束標記；一邊停止時另一邊還在繼續。請檢查 generation_config.json 的 eos_token_id 後重新匯出。",
    },
    "near_tie": {
        "en": "Likely cause: the model is undecided, so that rounding turns its answers. Train it longer, or on more rows.",
        "zh-TW": "可能原因：模型猶豫不決，捨入誤差就會改變答案。請訓練更久或增加資料。",
    },
    "quantized": {
        "en": "Likely cause: the model on the server is quantized, which changes some answers. See whether its score "
        "holds; if not, import it with q8_0 or without quantizing.",
        "zh-TW": "可能原因：伺服器上的模型經過量化，部分答案會改變。請看分數是否維持；若沒有，請改用 q8_0 或不量化匯入。",
    },
    "numbers": {
        "en": "Likely cause: the weights in the GGUF file are not those of the merged model. Export again.",
        "zh-TW": "可能原因：GGUF 檔中的權重與合併後的模型不同。請重新匯出。",
    },
}
PAGES = {
    "template": "troubleshooting/export-talks-nonsense#template",
    "bos": "troubleshooting/export-talks-nonsense#tell-apart",
    "tokenizer": "troubleshooting/export-talks-nonsense#causes",
    "rope": "troubleshooting/export-talks-nonsense#causes",
    "dtype": "guides/inference-quantization#quality",
    "quantized": "guides/inference-quantization#quality",
    "stop": "troubleshooting/export-talks-nonsense#causes",
    "near_tie": "troubleshooting/export-talks-nonsense#tell-apart",
    "numbers": "troubleshooting/export-talks-nonsense#remedies",
}  # kind → where the library says more


def wrong_rope(merged: Path, gguf: Path) -> bool:
    """Whether the file's rope base is another than the model's. Short answers may hide it: it grows with distance."""
    header = read_header(gguf)
    written = header.metadata.get(f"{header.architecture}.rope.freq_base", 0.0)
    wanted = rope_of(merged, read_config(merged))["rope_theta"]
    return not math.isclose(written, wanted, rel_tol=1e-4)


def cause_of(kind: str, merged: Path, gguf: Path) -> str:
    """The likelier, narrower cause: "numbers" that the file's own header explains become "rope" or "dtype"."""
    if kind not in ("numbers", "near_tie"):
        return kind
    if wrong_rope(merged, gguf):
        return "rope"
    config = read_config(merged)
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    exact = {"float32": {"F32"}, "bfloat16": {"F32", "BF16"}, "float16": {"F32", "F16"}}.get(stored, {"F32"})
    kinds = {dtype for shape, dtype in read_header(gguf).tensors.values() if len(shape) > 1}
    return kind if kinds <= exact or kind == "near_tie" else "dtype"
