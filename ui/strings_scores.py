"""What `tunesmith eval-answers` prints, in both languages; joined to the table in i18n.py."""

from __future__ import annotations

SCORES: dict[str, tuple[str, str]] = {  # key: (en, zh-TW)
    "scores.all": ("all", "全部"),
    "scores.questions": ("questions", "題數"),
    "scores.answered": ("answered", "已回答"),
    "scores.gold_in_answer": ("fact in answer", "回答含應有事實"),
    "scores.gold_in_cited": ("fact in cited passages", "引用段落含應有事實"),
    "scores.refusal_precision": ("refusal precision", "拒答精確率"),
    "scores.refusal_recall": ("refusal recall", "拒答召回率"),
    "scores.answerable_refused": ("wrongly refused", "誤拒比例"),
    "scores.sentences": ("sentences", "句數"),
    "scores.citation_precision": ("citation precision", "引用精確率"),
    "scores.citation_precision_second_judge": ("… by second judge", "同左，第二種判定"),
    "scores.citation_recall": ("citation recall", "引用召回率"),
    "scores.unsupported": ("unsupported", "無出處比例"),
    "scores.first_seconds": ("s to first words p50/p95", "到首字秒數 p50/p95"),
    "scores.seconds": ("s to last words p50/p95", "到完成秒數 p50/p95"),
    "scores.note": (
        "Answered by {backends}. --json gives each question with its answer and the verdict on each sentence.",
        "回答者：{backends}。加 --json 會列出每一題的回答與每一句的判定。",
    ),
}
