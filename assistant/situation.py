"""A person's words, a JSON object or a measured data file → Situation, what the advice starts from.

Patterns in Traditional and Simplified Chinese and English; a model is not needed. Pure.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from assistant.goals import goals_in
from assistant.numerals import NUMBER, number
from assistant.types import Situation
from trainer.config import UserError
from trainer.hardware import gpu_row

ABOUT = r"\s*(?:多|幾|几|餘|余|來|来|\+)?\s*"

# What a number counts, by the words after it. First match of a line wins, so the special ones stand first.
NOUNS = (
    "rows?|examples?|samples?|records?|reviews?|sentences?|tweets?|emails?|messages?|comments?|tickets?|conversations?|"
    "dialog(?:ue)?s?|instructions?|q&as?|qas?|question[- ]answers?|questions?|utterances?|translations?|pairs|texts?|"
    "transcripts?|summaries|labels?|abstracts?|posts?|notes|traces?|solutions?|functions?|snippets?|descriptions?|"
    "headlines?|titles|decisions|judge?ments|reports?|contracts?|queries|prompts?|answers?|stories|letters|chats?|calls?|instances?|items|"
    "claims|cases|listings|bugs|issues|commits|poems|lyrics|paragraphs|captions|logs|transactions|inquiries|complaints|essays|"
    "exercises|clauses|segments|entries|data ?points|interactions|threads|completions|annotations|rewrites|recordings|invoices|resumes|c\\.?v\\.?s"
)
HAN_NOUNS = "函式|函数|範例|范例|例子|樣本|样本|問題|问题|對話|对话|問答|问答|指令|標題|标题|描述|評論|评论|工單|工单|案例|句子|訊息|(?<![主話话議议課课])[题題]|FAQ|QA|病歷|病历|摘要|逐字稿|回覆|回复|回答|紀錄|记录|合約|合同|報告|报告|簡訊|短信|貼文|留言|新聞|新闻|文案|作文|信件|郵件|邮件|履歷|简历|發票|发票"
LABELLED = "標註|标注|標記|标记|標好|标好|labell?ed|annotated"
COUNTS: list[tuple[str, str]] = [
    ("preference_pairs", r"(?:組|组|對|对|筆|条|條|個|个)?\s*(?:人工)?(?:標註|标注)?(?:過|过)?(?:的)?\s*(?:偏好|chosen\s*/\s*rejected|比較|比较|好壞|好坏|優劣|优劣|一好一壞|一好一坏|较好和较差)"),
    ("preference_pairs", r"(?:human\s+|labell?ed\s+)?(?:preference|comparison|chosen[/ -]+(?:and\s+)?rejected|ranked)\s*(?:answer\s+)?(?:pairs?|comparisons?|data|examples)?"),
    ("preference_pairs", r"(?:組|组|對|对|筆|条|條)\s*(?:回答|答案|回覆|回复|輸出|输出|摘要|譯文|译文)[^。.;；\d]{0,16}?(?:哪[個个一]?[^。.;；]{0,4}[好佳]|[較较更][好佳]|好壞|好坏|優劣|优劣)"),
    ("preference_pairs", r"(?:pairs|comparisons)\s+(?:of\s+)?[^.;\d]{0,40}?\b(?:better|preferred|preference|winner|winning)"),
    ("preference_pairs", r"pairs\s+of\s+(?:\w+\s+)?(?:chosen|preferred|good|better)"),
    ("thumbs_down", r"(?:個|个|筆|条|條|次|則)?\s*(?:倒讚|倒赞|踩|負評按鈕|差評回饋|點踩|点踩|不喜歡)"),
    ("thumbs_down", r"(?:thumbs?[- ]?downs?|dislikes?|downvotes?)"),
    ("thumbs_up", r"(?:個|个|筆|条|條|次|則)?\s*(?:按讚|點讚|点赞|讚|赞|喜歡)"),
    ("thumbs_up", r"(?:thumbs?[- ]?ups?|likes|upvotes?)"),
    ("verifier_prompts", r"(?:個|个|道|筆|条|條)?\s*(?:可(?:以)?(?:自動|自动|用程式)?(?:驗證|验证|檢查|检查|判定)|(?:數學|数学|程式|編程|编程)?[題题])"),
    ("verifier_prompts", r"(?:[\w-]+\s+){0,2}(?:prompts?|problems?|questions?|tasks?)\s+(?:[\w-]+\s+){0,6}(?:check|verif|unit[- ]test|test cases?|answers? that)"),
    ("docs", r"(?:份|篇|個|个|本|頁|页)\s*(?:\w{0,2}\s*)?(?:PDF|pdf|Word|[^\s，。,]{0,4}?(?:文件|文檔|文档|手冊|手册|規章|条文|條文|法規|文章|文獻|文献|論文|论文|說明書|说明书|网页|網頁|判例|規範|规范|指引|指南|守則|守则|校規|校规|條例|条例))"),
    ("docs", r"本\s*(?:[^\s，。,]{0,4}?)(?:小說|小说|書|书|課本|课本|教材)"),
    ("docs", r"(?:[A-Za-z-]+\s+){0,3}(?:documents?|docs|pdfs?|manuals?|pages|articles|policies|wiki|handbooks?|books)\b"),
    ("docs", r"-page\b"),
    ("rows", rf"(?:份|篇|個|个|张|張)?\s*(?:已)?(?:{LABELLED})(?:好|過|过)?(?:的)?"),
    ("rows", r"(?:筆|条|條|則|则|句|列|行|封|組|组|段|通|輪|轮|篇)"),
    ("rows", rf"(?:個|个|道|份|張|张)\s*(?:[\w\u4e00-\u9fff]{{1,8}}?\s*)??(?:{HAN_NOUNS})"),
    ("rows", rf"(?:[A-Za-z'/-]+\s+){{0,5}}?(?:{NOUNS})\b"),
    ("rows", r"(?:[A-Za-z'/-]+\s+){1,5}?(?:labell?ed|annotated|tagged|categori[sz]ed)\b"),
]  # fmt: skip
# 「標註了 7000 對偏好」 counts pairs, though 「標註了 7000」 counts rows.
PAIRS_FOLLOW = rf"^{ABOUT}{COUNTS[0][1]}"
# Articles to summarise are rows, and so is what somebody sorted by hand; a wiki to ask is documents.
ARTICLE = (
    rf"articles|文章|文獻|文献|論文|论文|分好[類类]|(?:已|都|人工)[^，。,.\d]{{0,6}}(?:分[類类]|{LABELLED})"
)
# Where no list above holds the name of what is counted: documents if people look things up in them, else rows.
LOOKED_UP = (
    r"ask(?:ing)?\s+(?:it\s+)?questions|questions?\s+(?:over|about|on|from)|look\s?up|\bsearch|retriev|\bcit(?:e|ation)|\bsources?\b"
    r"|查(?:詢|询|到|得|找)|出處|出处|來源|来源|引用|問機器人|问机器人|問答|问答|提問|提问"
)
NO_DATA = (
    "gpus?|cards?|epochs?|tokens?|class(?:es)?|categories|topics|types|kinds|departments|teams|users|people|customers|employees|staff|"
    "students|engineers|hours|days|weeks|months|years|minutes|seconds|times|layers|heads|parameters|params|dollars|words|characters|"
    "machines|nodes|servers|cores|languages|steps|points|countries|products|intents|entities|tags|stars|fields|percents?|bits|bytes|ms"
)
OWNED = r"(?:\b(?:have|has|had|got|collected|gathered|wrote|written|are|over|on|from|using|our|my|these)|'ve|^)\s*(?:about|around|some|nearly|roughly|over|only|just|almost)?\s*"
FUNCTION_WORD = "with|and|for|on|in|to|or|as|is|of|at|by|using|per|than|from|into|the|a|this|does|has|was"
OTHER_COUNTS = (
    rf"(?P<n>{NUMBER}){ABOUT}[份本]",
    rf"{OWNED}(?P<n>{NUMBER})\s*(?:(?!(?:{NO_DATA}|{FUNCTION_WORD})\b)[a-z-]+\s+){{0,2}}?(?!(?:{NO_DATA}|{FUNCTION_WORD})\b)[a-z-]{{3,}}s\b",
)
# The other way round: the name first, then the number.
NAMED_COUNTS: list[tuple[str, str]] = [
    ("rows", rf"(?:已)?(?:{LABELLED})(?:了|好了|過|过)?\s*(?:有|約|约|:|：)?\s*"),
    ("preference_pairs", r"chosen\s*/\s*rejected\s*(?:有|約|约|:|：|=)?\s*"),
    ("thumbs_down", r"(?:倒讚|倒赞|點踩|点踩|踩|thumbs?[- ]?down|dislikes?)\s*(?:有|:|：|=)?\s*"),
    ("thumbs_up", r"(?:按讚|點讚|点赞|(?<!倒)讚|(?<!倒)赞|thumbs?[- ]?up|(?<!dis)likes?)\s*(?:有|:|：|=)?\s*"),
    ("preference_pairs", r"(?:偏好(?:資料|数据|對|对)?|preference pairs?)\s*(?:有|約|约|:|：|=)?\s*"),
]  # fmt: skip
DATA_IS = r"(?:資料量?|数据量?|資料集|数据集|語料|语料|dataset|data)(?:\s*(?:大約|大约|約|约|有|共|總共|of|size|is|about|:|：))*\s*"
# Documents, and their number after them: "the wiki's files, about 600 of them" in Chinese.
# Articles of a law are documents to look up, though 條 counts rows elsewhere.
ARTICLES = r"(?:法規|法规|條文|条文|規章|规章|規定|规定)[^。.;；\d]{0,12}[，,]?\s*(?:大約|大约|約|约|有|共|總共|总共)*\s*"
# What comes in every day is what the model will work on, not what it is trained on.
STREAM = r"(?:每天|每日|天天|每週|每周|每月|每個月|每个月|每小時|daily|per day|a day|every day|each day)[^，。,;；\d]{0,10}$"
STREAM_AFTER = r"^[^，。,;；\d]{0,24}?(?:per (?:day|week|month)|a day|every day|each day|daily|/\s?day)"
DOCS_ARE = r"(?:內規|内规|校規|校规|指引|指南|守則|守则|條例|条例|說明書|说明书|文件|文檔|文档|手冊|手册|規章|规章|條文|条文|法規|法规|PDF)[^，。,.;；\d]{0,6}[，,]?\s*(?:大約|大约|約|约|有|共|總共|总共)*\s*"
TASKS: list[tuple[str, str]] = [
    ("ner", r"\bNER\b|命名實體|命名实体|實體(?:識別|辨識|抽取)|实体(?:识别|抽取)|named[- ]entit|entity recognition"),
    ("tool-use", r"tool[- ]?(?:use|call)|function[- ]call|工具(?:呼叫|調用|调用|使用)|函(?:式|数|數)(?:呼叫|调用)|\bagent\b"),
    ("translation", r"翻譯|翻译|translat"),
    ("summarization", r"摘要|總結|总结|summar[iy]"),
    ("classification", r"情感|情緒|情绪|分類|分类|classif|sentiment|意圖|意图|\bintents?\b|spam|垃圾(?:郵件|邮件|訊息|簡訊|短信|信息|留言)|categor|moderation|偵測|侦测|检测|檢測|\bdetect|fraud|詐騙|诈骗|toxic|hate speech|辱罵|辱骂|判別|判别|(?:標|标|歸|归)(?:成|為|为).{0,8}(?:類|类|種|种|級|级)|分派|分到|分發到|分发到|歸類|归类|歸到|\brouting\b|\btriage|打標|打标|\bclasses\b|分(?:成|為|为).{0,8}類|分(?:成|为).{0,8}类|類別|类别"),
    ("extraction", r"into JSON|成\s?JSON|\bpars(?:e|ing|er)\b|抽取|擷取|提取|萃取|extract|結構化|结构化|structured output"),
    ("code", r"程式碼|代碼|代码|寫程式|写程序|編程|编程|\bcod(?:e|ing)\b|\bSQL\b|programming"),
    ("reasoning", r"推理|reasoning|\bmath|數學|数学|解題|解题"),
    ("style", r"風格|风格|語氣|语气|口吻|口氣|口气|語調|语调|文風|文风|\bstyle\b|\btone\b|persona|brand voice|角色扮演|roleplay"),
    ("preference", r"偏好|對齊|对齐|preference|\balign"),
    ("chat", r"客服|聊天|對話|对话|chat|customer (?:service|support)|support bot|conversation|dialog|助理|助手|assistant"),
    ("domain-knowledge", r"領域知識|领域知识|專業知識|专业知识|知識庫|知识库|公司(?:內部)?(?:知識|文件|規章)|法規|法规|手冊|手册|knowledge|問答|问答|\bQ&?A\b|question answering|\bpolic(?:y|ies)\b|\bfacts\b|handbook"),
    ("classification", r"評分|评分|打分|星級|星级|[顆颗]星|\bratings?\b|判斷是否|判断是否|是不是|yes\s*/\s*no|labell?ed (?:as|with|by|into)"),
    ("generation", r"續寫|续写|生成|寫作|写作|文案|撰寫|撰写|generat|draft|\bwrit(?:e|ing)\b|copywriting|story|小說|小说"),
    ("classification", r"\blabell?ed\b|\bannotated\b|標籤|标签|類型|类型"),
]  # fmt: skip
LANGUAGES: list[tuple[str, str]] = [
    ("zh-TW", r"繁體|繁体|正體|台灣|臺灣|traditional chinese|taiwan"),
    ("zh-CN", r"簡體|简体|simplified chinese|mandarin"),
    ("zh", r"中文|華語|华语|漢語|汉语|chinese"),
    ("yue", r"粵語|粤语|cantonese"),
    ("en", r"英文|英語|英语|english"),
    ("ja", r"日文|日語|日语|japanese"),
    ("ko", r"韓文|韓語|韩语|韩文|korean"),
    ("de", r"德文|德語|德语|german"),
    ("fr", r"法文|法語|法语|french"),
    ("es", r"西班牙|spanish"),
    ("th", r"泰文|泰語|泰语|\bthai\b"),
    ("vi", r"越南|vietnamese"),
    ("id", r"印尼|indonesian"),
    ("pt", r"葡萄牙|portuguese"),
]
POSITIVE = r"正面|正向|正例|正樣本|正样本|陽性|阳性|正常|\bpositives?\b|\bnormal\b"
NEGATIVE = r"負面|负面|負向|负向|負例|负例|負樣本|负样本|陰性|阴性|異常|异常|\bnegatives?\b|\babnormal\b"
# "only 4 % are …", "2 % positive": the rare class of two
RARE = (
    r"(?:只有|僅有|仅有|僅|仅|\bonly|\bjust)\s*(?:約|约|about)?\s*(\d{1,2}(?:\.\d+)?)\s*[%％]\s*(?:是|為|为|屬|属|are|is|of)"
    rf"|(\d{{1,2}}(?:\.\d+)?)\s*[%％]\s*(?:的|是|為|为)?(?:{POSITIVE}|{NEGATIVE}|fraud|spam|詐騙|诈骗|垃圾|故障|辱罵|辱骂|違規|违规)"
)
# "2% are toxic", said of labels
RARE_LABEL = r"(?<![\d.])(1?\d(?:\.\d+)?)\s*[%％]\s*(?:of (?:them|these|which)\s+)?(?:are|is|是|為|为|屬|属)(?!\s*(?:duplicate|empty|missing|noise|重複|重复|空))"
VERIFIED = (
    r"自動|自动|驗證|验证|檢查|检查|判定|標準答案|标准答案|單元測試|单元测试|測資|测试用例|check|verif|unit[- ]?test|test case"
    r"|GRPO|RLOO|RLVR|強化學習|强化学习|reinforcement|\bRL\b"
)
MOST_TEXT = 2000  # characters of a question that are read
ROW_TASKS = ("classification", "ner", "extraction", "summarization", "translation")
NO_GPU = r"(?:沒有|没有|沒|没|無|无|不用)\s*(?:任何)?\s*(?:GPU|獨立?顯卡?|独立?显卡?|顯示卡|顯卡|显卡)|(?:只有|僅有|仅有|純|纯)\s*CPU|no\s+(?:dedicated\s+|discrete\s+|nvidia\s+)*(?:gpus?|cards?)\b|without\s+(?:a\s+|any\s+)?gpu|no\s+graphics\s+card|GPU\s*[:：]\s*(?:none|no\b|無|无|沒有|没有)|cpu[- ]only|only\s+(?:a\s+|have\s+a\s+)?cpu"
SENSITIVE = r"敏感|機密|机密|涉密|保密|內網|内网|不得(?:外|上雲|上云|離開|离开|流出)|不出(?:院|公司|門|门)|air[- ]?gap|\bNDA\b|隱私|隐私|病歷|病历|個資|个资|不能(?:外|上雲|上云|離開|离开)|不可(?:外|上雲|上云)|confidential|sensitive|\bPII\b|HIPAA|GDPR|must not leave|cannot leave|can't leave|on[- ]prem|private data|patient"
DAILY = r"每天|每日|天天|隨時|随时|即時|实时|daily|every day|each day|hourly|real[- ]?time"
WEEKLY = r"每週|每周|每星期|每月|每個月|每个月|每季|每半年|quarterly|经常|經常|常常|weekly|every week|monthly|every month|often|frequently"
CHANGES = r"更新|修訂|修订|調整|调整|amend|變|变|改|異動|新增|新的|編輯|编辑|\bedit|updat|chang|new\b|revis|refresh|stale"
STATIC = r"(?:幾乎|几乎)?不(?:太|常)?(?:更新|改|變|变)|不會變|不会变|不變|不变|固定不|很少(?:更新|變|变)|static|never chang|does not change|doesn't change|rarely chang"
COT = r"推理過程|推理过程|思考過程|思考过程|思維鏈|思维链|思考鏈|解題步驟|解题步骤|chain[- ]of[- ]thought|\bCoT\b|reasoning trace|step[- ]by[- ]step (?:solution|answer)"
SFT_DONE = r"已[^，。,;；?？]{0,20}?(?:做過|做过|做完|完成|跑過|跑过)(?:了)?\s*(?:一次|一輪|一轮)?\s*(?:SFT|監督式?微調|监督微调|微調|微调)|(?:已|已經|已经)(?:經|经)?(?:做過|做过|做完|完成|跑過|跑过)?\s*(?:了)?\s*(?:SFT|監督式?微調|监督微调|微調過|微调过)|(?:SFT|微調|微调)(?:已|已經|已经)?(?:做完|完成)|on top of (?:our|the|an?)\s+SFT|already\s+(?:been\s+|gone\s+|went\s+)?(?:through\s+|had\s+|finished\s+|completed\s+|did\s+|done\s+|ran\s+)?(?:an?\s+)?(?:SFT|fine-?tuned|instruction-tuned)|after SFT|sft[- ]?(?:is\s+)?done|SFT'?ed|(?:微調|微调)(?:之)?(?:後|后)|after fine-?tuning"
MODEL = r"\b((?:[\w.-]+/)?(?:Qwen|QwQ|Llama|Gemma|Mistral|Mixtral|Ministral|DeepSeek|Phi|gpt-oss|SmolLM|Yi|GLM|ChatGLM|Baichuan|InternLM|Falcon|OLMo|TAIDE|Breeze)[\w.]*(?:[- ](?!\d+\s?GB)[\w.]*\d[\w.]*)*(?:-(?:Instruct|Chat|Base|Thinking|it|mini|Distill)[\w.-]*)*)"
MODEL_SIZE = r"(\d+(?:\.\d+)?)\s?[Bb](?![A-Za-z])"


def situation(values: dict[str, Any]) -> Situation:
    """A Situation from a JSON object (`lang` beside the keys is allowed). Raises UserError that names a bad key."""
    if not isinstance(values, dict):
        raise UserError(f"situation: expected an object of keys and values, found {type(values).__name__}")
    try:
        return Situation.model_validate({key: value for key, value in values.items() if key != "lang"})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(Situation.model_fields)
            raise UserError(f"situation: unknown key {name!r}; the keys are: {known}") from None
        raise UserError(f"situation: {name} = {str(first.get('input'))[:60]!r}: {first['msg']}") from None


def situation_from_text(question: str) -> Situation:
    """What a question says of the task, the data and the machine; what it does not say stays None."""
    text = re.sub(r"\s+", " ", question)[:MOST_TEXT].strip()
    task = next((name for name, pattern in TASKS if _has(pattern, text)), None)
    found: dict[str, Any] = {"task": task, **_counts(text, task)}
    found["language"] = _language(text)
    found |= _machine(text)
    found |= _model(text)
    if _has(rf"(?:{DAILY}).{{0,24}}(?:{CHANGES})|(?:{CHANGES}).{{0,16}}(?:{DAILY})", text):
        found["knowledge_update"] = "daily"
    elif _has(rf"(?:{WEEKLY}).{{0,24}}(?:{CHANGES})|(?:{CHANGES}).{{0,16}}(?:{WEEKLY})", text):
        found["knowledge_update"] = "weekly"
    elif _has(STATIC, text):
        found["knowledge_update"] = "static"
    for key, pattern in (("sensitive", SENSITIVE), ("has_cot", COT), ("sft_done", SFT_DONE)):
        if _has(pattern, text):
            found[key] = True
    if match := re.search(
        rf"(?:平均|每[筆条條則]|average|about|around|~)[^，。,.]{{0,12}}?({NUMBER})\s*(?:個|个)?\s*tokens?",
        text,
        re.I,
    ):
        found["avg_tokens"] = number(match[1]) or None
    found["class_ratio"] = _class_ratio(text, task)
    found |= goals_in(text)
    found["goal"] = question
    return Situation(**{key: value for key, value in found.items() if value is not None})


def situation_from_profile(profile: Any) -> Situation:
    """What a measured data file says (trainer.data.profile): rows or pairs, labels, language, lengths, task."""
    pairs = profile.preference_pairs or None
    up, down = profile.thumbs_up or None, profile.thumbs_down or None
    labels = [count for count in (profile.labels or {}).values() if count]
    lengths, completions = profile.tokens, profile.completion_tokens
    values = {
        "task": profile.task,
        "language": profile.language,
        "rows": None if pairs or up or down or profile.format == "text" else profile.rows,
        "docs": profile.rows if profile.format == "text" else None,  # plain text has no answers to learn
        "preference_pairs": pairs,
        "thumbs_up": up,
        "thumbs_down": down,
        "avg_tokens": (lengths.mean or float(lengths.p50)) if lengths and lengths.p50 else None,
        "avg_completion_tokens": (completions.mean or float(completions.p50))
        if completions and completions.p50
        else None,
        "class_ratio": max(labels) / min(labels) if len(labels) > 1 else None,
    }
    return situation({key: value for key, value in values.items() if value is not None})


def _counts(text: str, task: str | None) -> dict[str, int]:
    found: dict[str, int] = {}
    taken: list[tuple[int, int]] = []
    patterns = [(key, rf"{words}(?P<n>{NUMBER})") for key, words in NAMED_COUNTS]
    patterns += [(key, rf"(?P<n>{NUMBER}){ABOUT}{words}") for key, words in COUNTS]
    patterns.insert(0, ("docs", rf"{DOCS_ARE}(?P<n>{NUMBER})(?=\s*(?:多|幾|几|餘|余)?\s*[份篇本頁页])"))
    patterns.insert(1, ("docs", rf"{ARTICLES}(?P<n>{NUMBER})(?=\s*[條条])"))
    patterns.append(("rows", rf"{DATA_IS}(?P<n>{NUMBER})"))  # last: "資料 2000 對" counts pairs
    for key, pattern in patterns:
        for match in re.finditer(pattern, text, re.I):
            value, span = number(match["n"]), match.span("n")
            if value is None or key in found or any(a < span[1] and span[0] < b for a, b in taken):
                continue
            if re.match(r"\s*(?:GB|GiB|G\b|B\b|%|epochs?|GPU|tokens?\b)", text[span[1] :], re.I):
                continue
            if key == "rows" and (value < 10 and not match["n"].strip().isdigit()):
                continue  # "one of our ... emails", 「一句」
            if key == "rows" and _has(PAIRS_FOLLOW, text[span[1] :]):
                continue
            if key == "rows" and (_has(STREAM, text[: span[0]]) or _has(STREAM_AFTER, text[span[1] :])):
                continue
            found[key] = int(value)
            taken.append(span)
    if task in ROW_TASKS and "rows" not in found and found.get("docs") and _has(ARTICLE, text):
        found["rows"] = found.pop("docs")
    if classes := _class_counts(text):
        found["rows"] = sum(classes)
    if "verifier_prompts" in found and "rows" not in found and not _has(VERIFIED, text):
        found["rows"] = found.pop(
            "verifier_prompts"
        )  # questions, but no word of a program that checks the answers
    return found or _other_count(text)


def _other_count(text: str) -> dict[str, int]:
    """The first number of ten and more, written in digits, of things that no list of names holds."""
    for match in (match for pattern in OTHER_COUNTS for match in re.finditer(pattern, text, re.I)):
        value, before, after = number(match["n"]), text[: match.start("n")], text[match.end("n") :]
        streamed = _has(STREAM, before) or _has(STREAM_AFTER, after)
        counts = (
            value and value >= 10 and match["n"].strip()[0].isdigit() and gpu_row(match["n"].strip()) is None
        )
        if counts and not streamed:
            return {"docs" if _has(LOOKED_UP, text) else "rows": int(value)}
    return {}


def _class_counts(text: str) -> tuple[int, int] | None:
    """Rows of two classes that were counted apart: "9,500 positive and 500 negative"."""
    counts = []
    for name in (POSITIVE, NEGATIVE):
        match = re.search(rf"(?:{name})[^，。,;；\d]{{0,6}}?({NUMBER})", text, re.I) or re.search(
            rf"({NUMBER})\s*(?:筆|条|條|則|个|個|篇)?\s*(?:{name})", text, re.I
        )
        value = number(match[1]) if match else None
        if not value or re.match(r"\s*[%％]", text[match.end(1) :]):
            return None
        counts.append(int(value))
    return counts[0], counts[1]


def _language(text: str) -> str | None:
    named = [code for code, pattern in LANGUAGES if _has(pattern, text)]
    if named and named[0].startswith("zh-") and "zh" in named:
        named.remove("zh")
    if _has(r"中英|雙語|双语|bilingual|multilingual|多語|多语", text) or len(named) > 1:
        return "mixed"
    if named:
        return named[0]
    return "zh" if len(re.findall(r"[\u4e00-\u9fff]", text)) >= 8 else None


def _machine(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if _has(NO_GPU, text):
        return {"gpus": 0}
    row, spelled = _gpu_in(text)
    if row is not None:
        found |= {"gpu_name": spelled, "gpus": 1}
    card = (
        rf"(?:RTX|GTX|NVIDIA|GeForce|Tesla|{re.escape(spelled) if spelled else 'GPU'}|GPUs?|顯卡|显卡|顯示卡)"
    )
    counted = re.search(
        rf"({NUMBER})\s*(?:張|张|片|塊|块|顆|颗|x|×|\*)?\s*{card}|({NUMBER})\s*(?:張|张|塊|块)", text, re.I
    )
    if counted and (count := number(counted[1] or counted[2])) and count <= 64:
        found["gpus"] = int(count)
    elif spelled and (
        match := re.search(rf"{re.escape(spelled)}[^，。,;；]{{0,8}}?[x×*]\s*(\d{{1,2}})\b", text, re.I)
    ):
        found["gpus"] = int(match[1])
    elif (
        _has(rf"(?:單|单)\s*(?:張|张|卡|片|塊|块)?|single\s+{card}", text)
        and "gpus" not in found
        and _has("GPU|顯卡|显卡|卡", text)
    ):
        found["gpus"] = 1
    elif match := re.search(rf"\b(dual|two|four|eight)\s+(?:\w+\s+)?{card}", text, re.I):
        found["gpus"] = {"dual": 2, "two": 2, "four": 4, "eight": 8}[match[1].lower()]
    if (memory := _gpu_memory(text)) is not None:
        found["gpu_vram_gb"] = memory
        found.setdefault("gpus", 1)
    return found


def _gpu_in(text: str) -> tuple[Any, str | None]:
    """The first GPU of gpus.yaml that the text names, with its spelling."""
    pattern = (
        r"(?:RTX|GTX)?\s?(?:PRO\s)?A?\d{4}\s?(?:Ti\s?Super|Ti|Super|Ada)?|DGX Spark|MI300X?"
        r"|\b(?:[ABHLPTV]|G[BH])\d{1,3}0?[GS]?\b(?:\s?-?\d{2}\s?GB)?"
    )
    for match in re.finditer(pattern, text, re.I):
        if (row := gpu_row(match[0])) is not None:
            return row, match[0].strip()
    return None, None


def _gpu_memory(text: str) -> float | None:
    """The first size in GB that is not said of RAM, a disk or the data."""
    for match in re.finditer(r"(?<![A-Za-z\d.])(\d+(?:\.\d+)?)\s*(?:GiB|GB|G)(?![A-Za-z])", text, re.I):
        after, before = text[match.end() : match.end() + 14], text[max(0, match.start() - 14) : match.start()]
        if _has(
            r"^\s*(?:of\s+)?(?:system\s+)?(?:RAM|主記憶體|disk|硬碟|硬盘|資料|数据|data|text|corpus|檔)",
            after,
        ):
            continue
        if _has(
            r"(?:RAM|主記憶體|系統記憶體|資料|数据|語料|data(?:set)?|corpus)\s*(?:有|約|约|of|is|:|：)?\s*$",
            before,
        ):
            continue
        of_card = _has(r"VRAM|顯存|显存|顯示記憶體|GPU|顯卡|显卡|顯示卡|card|RTX|卡", before + after)
        if not of_card and (_has(r"^\s*(?:記憶體|内存)", after) or _has(r"(?:記憶體|内存)\s*$", before)):
            continue
        return float(match[1])
    return None


def _model(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if _has(r"起步模型|starter model|base_model[=: ]+starter", text):
        found["base_model"] = "starter"
    elif match := re.search(MODEL, text, re.I):
        found["wanted_model"] = match[1].strip()
    if (match := re.search(MODEL_SIZE, found.get("wanted_model", text))) and float(match[1]) > 0:
        found["wanted_model_b"] = float(match[1])
    if match := re.search(
        r"(?:\brank|秩)\s*(?:of|為|为|設為|设为|設|设|是|=|＝|:)?\s*(\d{1,4})\b|\br\s*[=＝:]\s*(\d{1,4})\b",
        text,
        re.I,
    ):
        found["wanted_r"] = int(match[1] or match[2]) or None
    return found


def _class_ratio(text: str, task: str | None) -> float | None:
    if classes := _class_counts(text):
        return max(classes) / min(classes)
    near = r"不平衡|不均|imbalanc|skew|ratio|比例"
    if match := re.search(
        rf"(?:{near}).{{0,20}}?(\d+)\s*[:：比]\s*(\d+)|(\d+)\s*[:：比]\s*(\d+).{{0,20}}?(?:{near})",
        text,
        re.I,
    ):
        a, b = (float(part) for part in match.groups() if part)
        return max(a, b) / min(a, b) if min(a, b) else None
    match = re.search(r"(\d{2}(?:\.\d+)?)\s*[%％]\s*(?:都|are|is|of|是|屬|属|為|为)", text, re.I)
    share = float(match[1]) / 100 if match else 0
    if 0.6 <= share < 1:
        return share / (1 - share)
    rare = re.search(RARE, text, re.I) or (task == "classification" and re.search(RARE_LABEL, text, re.I))
    share = float(next(part for part in rare.groups() if part)) / 100 if rare else 0
    return (1 - share) / share if 0 < share <= 0.4 else None


def _has(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.I) is not None
