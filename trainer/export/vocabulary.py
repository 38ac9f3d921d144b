"""A model folder's tokenizer → the GGUF fields by which llama.cpp splits text into the same tokens.

Part of writing GGUF. llama.cpp does not read tokenizer.json: it knows some ways of splitting by name, and
takes a wrong name without a word. So what is not known exactly is refused here, by name. Costs no torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.export.sentencepiece import BYTES, SPACE, prefix_of, scores_of

# Regular expressions of published tokenizers; what they stand for is their name below
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CL100K = _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
_WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_CAPITALS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_WORD}|{_CAPITALS}|\p{{N}}|{_REST}"
_GPT4O = rf"{_WORD}{_ENDINGS}|{_CAPITALS}{_ENDINGS}|\p{{N}}{{1,3}}|{_REST}"
# Steps of a pre-tokenizer and ignore_merges → llama.cpp's name (src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_*)
PRE_TOKENIZERS = {
    (("split " + _QWEN2, "bytes"), False): "qwen2",
    (("split " + _CL100K, "bytes"), True): "llama-bpe",
    (("split " + _CL100K, "bytes"), False): "dbrx",  # Phi-4
    (("split " + _TEKKEN, "bytes"), True): "tekken",  # Mistral Nemo
    (("split " + _GPT4O, "bytes"), False): "gpt-4o",  # Phi-4-mini
    (("digits", "gpt-2"), False): "smollm",
    (("gpt-2",), False): "gpt-2",
}
PHI3 = ("<unk>", "<s>", "</s>", "<|endoftext|>")  # tokens that llama.cpp's rule for Phi-3 takes as given
GENERATION_TAG = re.compile(r"{%([-+]?)\s*(end)?generation\s*([-+]?)%}")


@dataclass(frozen=True)
class Vocabulary:
    """What GGUF says of a tokenizer. `types` are gguf.TokenType, ids None where the model has no such token.

    model: llama.cpp's word for the kind: "gpt2" is byte-level BPE, "llama" is SentencePiece, which has scores in
    the place of merges and puts a space before a text if `space_prefix`. strips: a special token takes the white
    space after it away, as Phi-3's do.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    space_prefix: bool
    strips: bool
    bos: int | None
    eos: int | None
    eot: int | None
    unk: int | None
    pad: int | None
    add_bos: bool
    chat_template: str | None

    def model_name(self, name: str) -> str:
        """The name for the file: llama.cpp takes stripping tokens from a name with "phi-3" in it, and only from that."""
        plain = re.sub("(?i)phi(?=-?3)", "ph", name)
        return f"phi-3 {plain}" if self.strips else plain


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """The vocabulary of a model folder, filled up to `rows`, the rows of its embedding.

    Raises UserError naming what llama.cpp would split otherwise than transformers.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; GGUF needs the tokenizer of the `tokenizers` library beside the weights"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for every fault of the file
        raise UserError(f"{path}: not a tokenizer: {' '.join(str(error).split())[:160]}") from None
    data = json.loads(path.read_text(encoding="utf-8"))
    settings = read_json(folder / "tokenizer_config.json")
    _check_model(path, data)
    pieces = bool(data["model"].get("byte_fallback"))
    prefix = prefix_of(path, data) if pieces else "never"
    scores = scores_of(path, data["model"]) if pieces else {}
    tokens, types = _tokens(path, data, rows, pieces)
    ids = {token: index for index, token in enumerate(tokens)}
    named = {kind: ids.get(_content(settings.get(f"{kind}_token"))) for kind in ("bos", "eos", "pad")}
    eos, eot = _ends(folder, named["eos"])
    template = chat_template(folder, settings)
    bos = named["bos"]
    first = "" if template is None else _rendered(template, tokens[bos] if bos is not None else "")
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        pre="default" if pieces else pre_tokenizer_name(path, data),
        tokens=tokens,
        types=types,
        merges=[] if pieces else _merges(path, data["model"]["merges"]),
        scores=[scores.get(token, 0.0) for token in tokens] if pieces else [],
        # transformers' "first" is not after a special token, with which most chats begin; llama.cpp's is
        space_prefix=prefix == "always" or (prefix == "first" and not _starts_special(first, data)),
        strips=_strips(path, data, template or "", pieces),
        bos=bos,
        eos=eos,
        eot=eot,
        unk=ids.get(str(data["model"].get("unk_token"))) if pieces else None,
        pad=named["pad"],
        add_bos=_adds_bos(path, tokenizer, bos) and (template is None or first.startswith(tokens[bos])),
        chat_template=template,
    )


def pre_tokenizer_name(path: Path, data: dict[str, Any]) -> str:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json. Raises UserError for one it does not know."""
    pre, model = data.get("pre_tokenizer"), data["model"]
    parts = pre.get("pretokenizers", [pre]) if pre else []
    steps = tuple(_step(part) for part in parts)
    ignores = bool(model.get("ignore_merges"))
    if name := PRE_TOKENIZERS.get((steps, ignores)):
        return name
    if (name := PRE_TOKENIZERS.get((steps, not ignores))) and _all_merged(model):
        return name  # whole words in the vocabulary are found either way
    digest = sha256("\n".join(steps).encode()).hexdigest()[:12]
    raise UserError(
        f"{path}: llama.cpp would split text otherwise: pre-tokenizer {digest} "
        f"({' + '.join(step[:60] for step in steps) or 'none'}) is unknown; known: {', '.join(PRE_TOKENIZERS.values())}"
    )


def _all_merged(model: dict[str, Any]) -> bool:
    """Whether merges make every token of the vocabulary that is longer than a byte."""
    made = {"".join(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]}
    return all(len(token) == 1 or token in made for token in model["vocab"])


def _step(part: dict[str, Any]) -> str:
    kind = part.get("type", "?")
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return f"split {part.get('pattern', {}).get('Regex', '?')}"
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return "gpt-2" if part.get("use_regex", True) else "bytes"
    if kind == "Digits" and part.get("individual_digits"):
        return "digits"
    return json.dumps(part, ensure_ascii=False, sort_keys=True)


def _check_model(path: Path, data: dict[str, Any]) -> None:
    model = data.get("model", {})
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix"):
        raise UserError(f"{path}: {model.get('type')} tokenizers have no GGUF form here yet; BPE ones have")
    if model.get("byte_fallback"):
        return  # its normalizer is read with its spaces
    normalizer = (data.get("normalizer") or {"type": "NFC"})["type"]
    # llama.cpp normalises nothing; NFC leaves all but decomposed text as it is
    if normalizer != "NFC":
        raise UserError(
            f"{path}: normalizer {normalizer!r} changes text before it is split; llama.cpp has none"
        )


def _tokens(path: Path, data: dict[str, Any], rows: int, pieces: bool) -> tuple[list[str], list[int]]:
    from gguf.constants import TokenType

    model = data["model"]
    found: dict[int, tuple[str, int]] = {i: (token, TokenType.NORMAL) for token, i in model["vocab"].items()}
    if pieces:
        found |= {model["vocab"][name]: (name, TokenType.BYTE) for name in BYTES}
    for added in data.get("added_tokens", []):
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        if pieces and added["content"] == model.get("unk_token"):
            kind = TokenType.UNKNOWN
        elif pieces and SPACE in added["content"] and added["content"] in model["vocab"]:
            kind = TokenType.NORMAL  # a run of spaces, which merges make
        found[added["id"]] = (added["content"], kind)
    if found and max(found) >= rows:
        raise UserError(
            f"{path}: token {max(found)} has no row in the embedding, which has {rows}; resize it first"
        )
    # embeddings are often longer than the vocabulary; llama.cpp wants a name for every row
    filled = [found.get(i, (f"[PAD{i}]", TokenType.UNUSED)) for i in range(rows)]
    return [token for token, _ in filled], [int(kind) for _, kind in filled]


def _strips(path: Path, data: dict[str, Any], template: str, pieces: bool) -> bool:
    """Whether the template's special tokens take white space after them away. Raises UserError where some do."""
    used = [t for t in data.get("added_tokens", []) if t["content"] in template and t["content"] not in PHI3]
    stripping = [token for token in used if token.get("rstrip") or token.get("lstrip")]
    if not stripping:
        return False
    known = {token["content"] for token in data["added_tokens"]}
    if pieces and known.issuperset(PHI3) and all(t.get("rstrip") and not t.get("lstrip") for t in used):
        return True
    raise UserError(
        f"{path}: {stripping[0]['content']!r} takes white space beside it away, which llama.cpp does for Phi-3 only"
    )


def _merges(path: Path, merges: list[Any]) -> list[str]:
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if any(" " in part for pair in pairs for part in pair):
        raise UserError(
            f"{path}: a merge holds a space, which byte-level BPE cannot have; save the tokenizer again"
        )
    return [" ".join(pair) for pair in pairs]


def _ends(folder: Path, eos: int | None) -> tuple[int | None, int | None]:
    """(eos, eot): the tokens after which transformers stops, of which llama.cpp takes two by id.

    Others it finds by name (<|endoftext|>, <|eot_id|> and the like).
    """
    listed = read_json(folder / "generation_config.json").get("eos_token_id")
    if listed is None:
        listed = read_json(folder / "config.json").get("eos_token_id")
    ends = [end for end in (listed if isinstance(listed, list) else [listed]) if isinstance(end, int)]
    if eos is not None:
        ends = [eos, *(end for end in ends if end != eos)]
    return (ends[0] if ends else None), (ends[1] if len(ends) > 1 else None)


def _adds_bos(path: Path, tokenizer: Any, bos: int | None) -> bool:
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a").ids
    if full == plain:
        return False
    if bos is None or full != [bos, *plain]:
        raise UserError(
            f"{path}: it adds tokens around every text {full} that llama.cpp would not; only a BOS is known"
        )
    return True


def chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The folder's Jinja chat template as llama.cpp reads it: the generation tags become plain ifs.

    Those tags only mark the tokens that training counts. An `if` in their place keeps what they do to the
    white space around them, so the rendered text stays the same to the byte.
    """
    file = folder / "chat_template.jinja"
    template: Any = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(template, list):
        template = {entry.get("name"): entry.get("template") for entry in template}.get("default")
    if not template:
        return None
    return GENERATION_TAG.sub(lambda m: f"{{%{m[1]} {'endif' if m[2] else 'if true'} {m[3]}%}}", template)


def thinking_default(template: str | None) -> bool | None:
    """What `enable_thinking` must be for a prompt as transformers renders it when nobody says; None: no matter.

    llama.cpp always tells the template true or false, by its own guess of what the model can; transformers
    leaves it undefined, and templates differ in what they make of that.
    """
    if not template or "enable_thinking" not in template:
        return None
    plain = _rendered(template, "")
    return next((v for v in (True, False) if _rendered(template, "", enable_thinking=v) == plain), None)


def _rendered(template: str, bos: str, **options: Any) -> str:
    """A short chat through the template: llama.cpp adds one BOS to a prompt that has none, or does not."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    messages = [{"role": "user", "content": "a"}]
    try:
        return environment.from_string(template).render(
            messages=messages,
            bos_token=bos,
            eos_token="",
            add_generation_prompt=True,
            raise_exception=str,
            **options,
        )
    except TemplateError:
        return bos if bos and (bos in template or "bos_token" in template) else ""


def _starts_special(text: str, data: dict[str, Any]) -> bool:
    return any(text.startswith(token["content"]) for token in data.get("added_tokens", []))


def _content(token: Any) -> str | None:
    return token.get("content") if isinstance(token, dict) else token


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; {} where the file is not there. Raises UserError for a broken one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}:1: expected an object {{…}}, found {type(value).__name__}")
    return value
