"""What words mean to a question, as tables: who stands to whom, what is asked, what is empty.

English and Chinese stand side by side, so that a Chinese question reads an English graph.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from re import compile as pattern

# A relation has a first and a second side: "the FIRST of SECOND", "FIRST does SECOND". Each line:
# nouns for the first | nouns for the second | what the first does | what the second does. "a:b" is
# a word that is a kind of b: every father is a parent. "=" as the second: both sides are alike.
FRAMES = """
parent father:parent mother:parent dad:father mum:mother mom:mother 父母 家长:父母 父亲:父母 母亲:父母 爸爸:父亲 妈妈:母亲 | child kid son:child daughter:child offspring 孩子 子女 儿子:孩子 女儿:孩子
grandparent grandfather:grandparent grandmother:grandparent 祖父母 祖父:祖父母 爷爷:祖父 祖母:祖父母 奶奶:祖母 | grandchild grandson:grandchild granddaughter:grandchild 孙子 孙女
uncle aunt 叔叔 阿姨 | nephew niece 侄子 侄女
sibling brother:sibling sister:sibling 兄弟姐妹 兄弟:兄弟姐妹 姐妹:兄弟姐妹 哥哥:兄弟 弟弟:兄弟 姐姐:姐妹 妹妹:姐妹 | =
spouse husband:spouse wife:spouse 配偶 丈夫:配偶 妻子:配偶 老公:丈夫 老婆:妻子 | = | marry wed 结婚 嫁给 娶
friend 朋友 | = | befriend
colleague coworker 同事 | =
cousin 表亲 堂亲 | =
rival enemy competitor 对手 竞争对手 敌人 | = | compete 竞争
neighbour neighbor 邻居 邻国 | = | border adjoin 接壤 相邻 毗邻
employer 雇主 | employee worker staff 员工 雇员 职员 | employ hire 雇用 雇佣 聘用 | work 工作 任职 供职 就职
founder cofounder 创始人 创办人 创立者 | | found establish cofound 创立 创办 创建 建立
author writer 作者 | | write author 写 撰写 著 创作
director 导演 | | direct 执导
owner proprietor 所有者 拥有者 业主 | property possession subsidiary:property 财产 子公司:财产 | own possess 拥有
member 成员 会员 | | join 加入
leader head chief 领导人 领导者 领袖 负责人 首领 | | lead 领导
manager supervisor boss 经理 上司 主管 | subordinate 下属 部下 | manage supervise 管理 | report 汇报
teacher mentor tutor advisor adviser 老师 教师 导师 | student pupil apprentice disciple mentee 学生 弟子 徒弟 | teach instruct mentor 教 指导
doctor physician 医生 | patient 病人
landlord 房东 | tenant 租客
supplier vendor 供应商 | customer client 客户 顾客 | supply 供应 供货
successor 继任者 接班人 | predecessor 前任 前身 | succeed replace 接替 继任 取代 | precede
part component 部分 组成部分 | whole | | contain include comprise 包含 包括
cause reason 原因 起因 | effect consequence result 结果 后果 | cause trigger 导致 引起 造成 引发
producer maker manufacturer 生产商 制造商 厂商 | product 产品 | produce make manufacture 生产 制造
inventor 发明者 发明人 | invention 发明物 | invent 发明
discoverer 发现者 | discovery | discover 发现
buyer acquirer 收购方 买家 | acquisition | acquire buy purchase 收购 购买 买下
killer murderer 凶手 杀手 | victim 受害者 | kill murder 杀死 杀害
winner laureate 得主 获奖者 | award prize 奖项 奖 | win receive 获得 赢得 荣获
speaker | language 语言 | speak 说 讲
citizen 公民 | nationality citizenship 国籍
resident inhabitant 居民 | residence home 住所 住址 居住地 | live reside dwell 住 居住 定居
| birthplace birth 出生地 出生日期 生日:出生日期 | born 出生 生于 诞生
| death deathplace 死亡地点 逝世地 | die 去世 逝世 死 死于
| location site 位置 地点 所在地 | locate situate 位于 坐落
| headquarters seat 总部 | headquarter base
alumnus graduate 校友 | school university college 母校 毕业院校 大学 学校 | study attend graduate 毕业 就读 学习
| occupation profession job career 职业 职务
president 总统 主席 | 
capital 首都 首府 省会 | 
"""  # noqa: E501
NEVER_ACTIVE = {"born", "locate", "situate", "headquarter", "base"}  # "was born" has no "by"

NOUNS = """
child children; wife wives; person people persons; man men; woman women; boss bosses
alumnus alumni alumna; headquarters hq; thesis theses; university universities; country countries
"""
VERBS = """
write wrote written writes writing; make made makes making; buy bought buys; win won winning wins
teach taught; lead led leads; speak spoke spoken; sell sold; born bears; die died dying dies
marry married marries; found founded founding founds; study studied studies; build built
give gave given; sing sang sung; draw drew drawn; drive drove driven; fly flew flown
begin began begun; meet met meets; hold held; keep kept; leave left; lose lost; pay paid
run ran running; see saw seen; send sent
take took taken; tell told; think thought; know knew known; grow grew grown; choose chose chosen
fight fought; bring brought; catch caught; feed fed; get got gotten; go went gone goes; come came
become became; eat ate eaten; say said; put put; steal stole stolen; own owned owns owning
live lived lives living; lie lay lying lies; cause caused causes causing
play played plays playing; use used uses using; produce produced; report reported; result resulted
"""


def _forms(table: str) -> dict[str, str]:
    """Form -> base, of a table in which the base stands first."""
    lines = (line.split() for line in table.replace("\n", ";").split(";"))
    return {form: base for base, *others in filter(None, lines) for form in others}


_BASE = _forms(NOUNS) | _forms(VERBS)
INFLECTED = frozenset(form for form in _forms(VERBS) if form[-1] != "s")  # surely verbs

# -- what is asked ---------------------------------------------------------------------------------

WHO = {"who", "whom", "whose", "谁"}
WHERE = {"where", "哪里", "哪儿", "何处", "何地"}
WHEN = {"when", "什么时候", "何时", "几时", "哪年", "哪一年", "哪天", "哪一天", "哪个月"}
WHAT = {"what", "which", "什么", "哪", "哪个", "哪些", "哪家", "哪位", "哪几", "哪座", "哪所", "何"}
WHY = {"why", "how", "为什么", "为何", "怎么", "怎样", "如何", "怎么样"}
COUNT = {"多少", "几个", "几位", "几家", "几名", "几座", "几所", "多少个", "多少人", "几"}
ASKING = WHO | WHERE | WHEN | WHAT | WHY | COUNT
WHETHER = {"吗", "么", "是否", "是不是", "有没有", "对吗", "有无", "whether"}
RELATIVE = {"who", "whom", "that", "which", "whose", "where"}
MEASURES = {"old": "age", "tall": "height", "high": "height", "long": "length", "deep": "depth"}
MEASURES |= {"big": "size", "large": "size", "heavy": "weight", "far": "distance", "wide": "width"}
MEASURES |= {"fast": "speed", "expensive": "price"}
REASONS = {"cause", "reason", "purpose", "because", "manner", "method", "way"}
REASONS |= {"原因", "目的", "方式", "方法"}
LINKS = {"related", "connected", "linked", "connection", "relationship", "relation", "link"}
LINKS |= {"关系", "联系", "有关"}

# What triples cannot tell, by the words that ask for it.
NEGATION = {
    "not",
    "never",
    "no",
    "nobody",
    "none",
    "without",
    "neither",
    "nor",
    "cannot",
    "nothing",
}
NEGATION |= {"不", "没", "没有", "从未", "未", "并非", "不曾", "从不", "未曾", "不是"}
_COMPARISON = """
first second third last most least than best worst more fewer less same different only every
everyone everybody each always majority average top another next previous older younger
newer elder eldest larger bigger smaller earlier later longer taller higher compared longest
最 最早 最大 最小 最多 最少 最老 最年轻 最高 最长 第一 第二 第三 最后 首个 首位 第一个 更
比 只有 仅 每个 所有人 都 全部
"""
COMPARISON = frozenset(_COMPARISON.split())
_SUPERLATIVE = pattern(r"[a-z]{3,}(?:est)|\d+(?:st|nd|rd|th)")
_NO_SUPERLATIVES = """
interest forest harvest conquest request contest protest invest suggest digest arrest honest modest
manifest guest quest chest priest crest wrest behest tempest inquest northwest southwest midwest
"""
_NO_SUPERLATIVE = frozenset(_NO_SUPERLATIVES.split())

# What the end of a path must be a kind of, by the word that asks or names the kind.
GROUPS = {
    "person": "person people per human man woman boy girl individual 人 人物 人员",
    "organization": "organization organisation org company firm business institution agency team "
    "club band party school university college 公司 组织 机构 企业 团队 大学 学校",
    "place": "place location loc gpe city town country state county village region continent "
    "province district 地方 地点 城市 国家 省份 省 城 市 国",
    "time": "time date year month day 时间 日期 年份 年 月 日 年月",
}
GROUP = {word: group for group, line in GROUPS.items() for word in line.split()}
# Kinds that are one in two languages, or two words.
SAME = {"国家": "country", "国": "country", "城市": "city", "市": "city", "省": "province"}
SAME |= {"公司": "company", "企业": "company", "firm": "company", "business": "company"}
SAME |= {"大学": "university", "学校": "school", "团队": "team", "town": "city"}
GENERAL = {"person", "people", "per", "organization", "organisation", "org", "place", "location"}
GENERAL |= {"loc", "gpe", "time", "date", "人", "人物", "组织", "机构", "地方", "地点", "时间"}
EXPECTED = {"who": {"person", "organization"}, "where": {"place", "organization"}, "when": {"time"}}
DATED = pattern(
    r"\b\d{3,4}\b|\d年|\d月|"
    r"(?i:\b(?:january|february|march|april|may|june|july|august|september|october|november|"
    r"december|century)\b)|世纪"
)
TIMED = {"date", "year", "time", "day", "birthday", "日期", "时间", "年份", "生日", "出生日期"}
PLACED = {"locate", "live", "born", "die", "place", "city", "country", "study", "headquarters"}
PLACED |= {"employer", "residence", "location", "birthplace", "school"}

# -- words without a meaning of their own ----------------------------------------------------------

BE = {"is", "are", "was", "were", "be", "been", "being", "am", "是"}
HAVE = {"has", "have", "had", "having", "有", "有没有", "有无"}
DO = {"does", "do", "did", "can", "could", "will", "would", "should", "may", "might", "must"}
OF = {"of", "的"}
PLACES = {
    "in",
    "at",
    "on",
    "for",
    "within",
    "inside",
    "near",
    "as",
    "of",
    "under",
    "在",
    "于",
    "到",
}
PLACES |= {"to", "into", "为"}
PREPOSITIONS = PLACES | {"from", "by", "with", "about", "against", "after", "从", "由", "被", "跟"}
PREPOSITIONS |= {"与", "和", "给", "向"}
ENGLISH_PREPOSITIONS = {word for word in PREPOSITIONS if word.isascii()} - {"by"}
BY = {"by", "由", "被"}
DETERMINERS = {"the", "a", "an", "this", "that", "these", "those", "any", "some", "all", "one"}
DETERMINERS |= {"his", "her", "their", "its", "个", "位", "家", "名", "一个", "一位", "一家"}
BESIDE = {"besides", "except", "other", "else", "apart", "也", "除了", "以外", "之外", "还", "还有"}
POLITE = (
    "can you tell me; could you tell me; please tell me; tell me; do you know; please; i want to "
    "know; i would like to know; is it true that; is it the case that; list; name; give me; show "
    "me; find; 请问; 请告诉我; 告诉我; 你知道; 请列出; 列出; 我想知道"
)
EMPTY = frozenset(
    chain(
        ASKING,
        WHETHER - {"whether"},
        BE,
        HAVE,
        DO,
        PREPOSITIONS,
        DETERMINERS,
        BESIDE,
        ["there", "it", "s", "and", "or", "me", "tell", "please", "name", "many", "much", "number"],
        ["ever", "also", "called", "named", "than", "together", "了", "在", "呢", "里", "什", "么"],
        [
            "何",
            "时",
            "个",
            "和",
            "的",
            "都有",
            "哪",
            "吗",
            "其",
            "所",
            "过",
            "被",
            "把",
            "请",
            "you",
        ],
    )
)


@dataclass(frozen=True)
class Sense:
    """What a word says of two things. A noun: whoever fills `side` (0 or 1) of `concept` is called
    so; a verb: whoever fills it is its subject. `kind` is the word itself, "" for verbs."""

    concept: str
    side: int
    is_noun: bool
    kind: str = ""


def _frames() -> tuple[dict[str, list[Sense]], dict[str, str], set[str]]:
    senses: dict[str, list[Sense]] = {}
    general: dict[str, str] = {}
    alike: set[str] = set()
    for line in FRAMES.strip().splitlines():
        nouns = [part.split() for part in (line + "|||").split("|")[:4]]
        if nouns[1] == ["="]:
            nouns[1] = nouns[0]
        concept = next(
            word.split(":")[0] for part in (nouns[2], nouns[0], nouns[1]) for word in part
        )
        if nouns[0] is nouns[1]:
            alike.add(concept)
        for at, part in enumerate(nouns):
            for written in part:
                word, _, kind_of = written.partition(":")
                if kind_of:
                    general[word] = kind_of
                key = word if at < 2 else stem(word)
                sense = Sense(
                    concept, at % 2, at < 2, general_name(word, general) if at < 2 else ""
                )
                if not any(s == sense for s in senses.get(key, ())):
                    senses.setdefault(key, []).append(sense)
    return senses, general, alike


def general_name(word: str, general: dict[str, str]) -> str:
    """What a noun tells beyond its frame: "father", where "parent" tells nothing more ("")."""
    return TRANSLATED.get(word, word) if word in general else ""


TRANSLATED = {
    "dad": "father", "mum": "mother", "mom": "mother", "父亲": "father", "爸爸": "father",
    "母亲": "mother", "妈妈": "mother", "家长": "", "儿子": "son", "女儿": "daughter",
    "丈夫": "husband", "老公": "husband", "妻子": "wife", "老婆": "wife", "兄弟": "brother",
    "哥哥": "brother", "弟弟": "brother", "姐妹": "sister", "姐姐": "sister", "妹妹": "sister",
    "祖父": "grandfather", "爷爷": "grandfather", "祖母": "grandmother", "奶奶": "grandmother",
    "生日": "",
}  # fmt: skip

_ENDING = pattern("(?<=...)(?:ations?|ings?|ions?|ors?|ers?|ages?|ed|es|s)$")
_VOWEL = pattern("(?<=..)[eiy]$")


def stem(word: str) -> str:
    """An English word without its endings, so that "directed" and "director" meet; others as they
    are. Porter's rules would know more, and reading their library takes longer than answering."""
    if not word.isascii() or not word.isalpha():
        return word
    return _VOWEL.sub("", _ENDING.sub("", _BASE.get(word, word)))


def singular(word: str) -> str:
    """A noun as the tables have it."""
    if word in _BASE or not word.isascii() or len(word) < 4 or word.endswith(("ss", "us", "is")):
        return _BASE.get(word, word)
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word.removesuffix("s") if word not in SENSES else word


def is_superlative(word: str) -> bool:
    """Whether a word compares or ranks: "oldest", "first", "最大"."""
    ranks = _SUPERLATIVE.fullmatch(word) is not None and word not in _NO_SUPERLATIVE
    return word in COMPARISON or word.startswith("最") or ranks


SENSES: dict[str, list[Sense]] = {}
_SENSES, GENERAL_OF, ALIKE = _frames()
SENSES |= _SENSES
# Words that Chinese questions are cut into, beside the names and relations of the graph.
CHINESE = frozenset(
    word
    for word in chain(SENSES, EMPTY, NEGATION, COMPARISON, GROUP, LINKS, REASONS, WHETHER)
    if not word.isascii()
)


@lru_cache(maxsize=1 << 12)
def senses(word: str) -> tuple[Sense, ...]:
    """What a word may mean: by the tables, else by its form. A noun in -er or -or is who does."""
    known = [*SENSES.get(singular(word), ()), *SENSES.get(stem(word), ())]
    known = [s for s in dict.fromkeys(known) if s.is_noun or not _is_agent(word)] or known
    if known:
        return tuple(known)
    if _is_agent(word):
        return (Sense(stem(word), 0, True),)
    return Sense(stem(word), 1, True), Sense(stem(word), 0, False)


def is_verb_form(word: str) -> bool:
    """Whether a word has a form that only verbs have."""
    return word in INFLECTED or (len(word) > 4 and word.endswith(("ed", "ing")))


def is_listed(word: str) -> bool:
    """Whether the tables know a word."""
    return singular(word) in SENSES or stem(word) in SENSES


def _is_agent(word: str) -> bool:
    return word.isascii() and len(word) > 4 and word.rstrip("s").endswith(("er", "or"))
