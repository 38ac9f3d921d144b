"""What the parity gate asks both sides: conversations that show a template's differences, texts that show a tokenizer's.

All made up here. Used by parity.py; pure.
"""

from __future__ import annotations

from itertools import product
from typing import Any

Messages = list[dict[str, str]]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a city, 城市的天氣 <b>&'\"",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "城市"},
                    "days": {"type": "integer", "minimum": 1},
                },
                "required": ["city"],
            },
        },
    }
]
_SYSTEM = {"role": "system", "content": "You are a careful helper. 請用繁體中文回答。"}
_TURNS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": " b\n"},
    {"role": "user", "content": "再說一次"},
]
_QUESTION = [{"role": "user", "content": "What is 2 + 2?"}]
# name → conversation, and what the template is given beside it
CONVERSATIONS: dict[str, tuple[Messages, dict[str, Any]]] = {
    "user": (_QUESTION, {}),
    "chinese": ([{"role": "user", "content": "這家飯店的服務好嗎？"}], {}),
    "spaces": ([{"role": "user", "content": " \t這家飯店\n\n"}], {}),
    "system": ([_SYSTEM, *_QUESTION], {}),
    "turns": (_TURNS, {}),
    "system and turns": ([_SYSTEM, *_TURNS], {}),
    "thinking on": (_QUESTION, {"enable_thinking": True}),
    "thinking off": (_QUESTION, {"enable_thinking": False}),
    "tools": (_QUESTION, {"tools": TOOLS}),
}
MENTIONED = {"enable_thinking": "enable_thinking", "tools": "tools"}  # a template without the word ignores it


def conversations(template: str) -> dict[str, tuple[Messages, dict[str, Any]]]:
    """CONVERSATIONS without those that the template knows nothing of."""
    return {
        name: (messages, options)
        for name, (messages, options) in CONVERSATIONS.items()
        if all(MENTIONED[key] in template for key in options)
    }


_PLAIN = [
    "Hello world.", "The quick brown fox jumps over 13 lazy dogs.", "I'LL WE'VE don't can't it's O'Neill's",
    "微調一個小模型需要多少資料？", "这家酒店的服务很好，但是房间太小了。", "東京都の天気は晴れです。カタカナ、ひらがな。",
    "한국어 문장입니다. ㅋㅋㅋ", "Привет, как дела?", "Γειά σου Κόσμε", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया",
    "สวัสดีชาวโลก", "Tiếng Việt có dấu", "İstanbul ıI", "Straße ẞ naïve café", "ＦＵＬＬ ｗｉｄｔｈ １２３", "臺灣台灣 裏裡 綫線",
    "👍", "👩‍👩‍👧‍👦 family", "🇹🇼🇯🇵", "👋🏽 wave 👋", "1️⃣ 2️⃣", "☺︎☺️", "🧑‍🚀🚀✨", "ฅ^•ﻌ•^ฅ", "(╯°□°）╯︵ ┻━┻",
    "x² + y₂ ≠ ∞ ∑∫√", "ﬁ ﬂ ① ② ㈱ ㎡", "𝒳𝓎𝔷 𝟙𝟚", "𠮷野家 𡃁", "e\u0301 n\u0303 o\u0308", "\u1100\u1161\u11a8",
    "zero\u200bwidth\u200djoin\ufeff", "right\u202eto left\u202c", "nbsp\u00a0here\u2003em", "soft\u00adhyphen",
    "\u3000全形空白\u3000", "tab\tseparated\tvalues", "line\nfeed\r\ncarriage\rreturn", "\n\n\n", "   ", "   leading",
    "trailing   ", "a  b   c    d", " \n \n ", "\x07\x1b[31mred\x1b[0m", "z̸̛͇a̵͎l̶̰g̷o",
    "0", "1234567890", "3.14159e-10", "1,000,000.00", "２０２６年１１月２４日", "0x1F4A9", "007", "50% off!!!",
    "def add(a, b):\n    return a + b  # 加法\n", "for (int i = 0; i < n; ++i) { x[i] += y[i]; }",
    "const f = async () => await fetch(`/api?q=${q}`);", '{"key": [1, 2.5, null], "鍵": "值\\n"}', "SELECT * FROM t WHERE a = 'b';",
    "'; DROP TABLE users; --", "<script>alert('x')</script>", "<p class=\"a\">&nbsp;&amp;</p>", "$\\frac{a}{b}$ \\alpha",
    "- item: &a [1, 2]\n  ref: *a", "#include <stdio.h>\n\tint main(void);", "https://example.org/a?b=c&d=%E4%BD%A0#e",
    "C:\\Users\\name\\file.txt", "user@example.org", "#!/bin/sh\necho \"$HOME\" | grep -v '^#'", "%s %d %n {0} ${x}",
    "__init__ _private CamelCase snake_case kebab-case", "aGVsbG8gd29ybGQ=", "NULL undefined NaN true False",
    "<0x0A> ▁ Ġ Ċ", "[INST] [/INST] <<SYS>>", "### Instruction:", "User: a\nAssistant:", "......", "!?!?！？", "——…、。「」『』",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "哈哈哈哈哈哈哈哈哈哈", "lol 笑死 wwwww 233333", "A\u0000B".replace("\u0000", "\u0001"),
]  # fmt: skip
_LEFT = ["The ", "這是", "x=", "\n", "  ", "（", "7", "🙂", "don't "]
_MIDDLE = ["模型", "model's", "12345", "é", "👍🏽", "def f():", "。\n\n"]
_RIGHT = ["", " end", "！"]


def texts(count: int = 200) -> list[str]:
    """The same `count` texts every time: the hand-written ones, then mixtures of short pieces."""
    mixed = [left + middle + right for left, middle, right in product(_LEFT, _MIDDLE, _RIGHT)]
    return [*_PLAIN, *mixed][:count]
