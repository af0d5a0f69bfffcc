"""Messages as agents write them, and queries that look for them.

Words are real ones of five languages with their frequencies: English, German and Spanish from the
package pyspellchecker, Chinese and Hindi from the lists below, which follow Zipf's law. English
messages also have identifiers, paths, URLs, error codes, versions and hashes. Everything follows from
the random generator that is given.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from spellchecker import SpellChecker

WORDS_A_MESSAGE = 25
VOCABULARY = 40_000  # of one language
LANGUAGES = {"en": 50, "de": 13, "es": 13, "zh": 12, "hi": 12}  # shares, %
CODE_SHARE = 0.4  # of the English messages
UNSPACED = frozenset({"zh"})
KINDS = ("one typo", "two typos", "swapped words", "identifier", "rare word", "common words")

_ZH = """
的 是 在 我们 了 有 不 这个 和 就 服务器 数据 测试 部署 系统 文件 代码 问题 用户 需要 可以 错误 运行 完成 更新 消息 会话 搜索 结果 时间 今天 明天
昨天 已经 没有 一个 修复 版本 接口 请求 响应 数据库 迁移 失败 成功 检查 配置 环境 日志 任务 进度 分支 合并 提交 审查 设计 文档 功能 性能 内存 磁盘 网络
连接 超时 重试 缓存 队列 线程 进程 权限 密钥 令牌 登录 注册 天气 会议 计划 目标 团队 客户 产品 价格 订单 支付 退款 仓库 地址 电话 邮件 图片 视频 语言
翻译 模型 训练 推理 参数 学习 方法 函数 变量 类型 列表 字典 字符串 整数 循环 条件 异常 处理 返回 调用 导入 模块 安装 依赖 升级 回滚 备份 恢复 监控 报警
指标 图表 分析 报告 总结 决定 讨论 建议 同意 反对 等待 开始 结束 继续 停止 快速 缓慢 安全 漏洞 加密 解密 压缩 上传 下载 同步 异步 并发 锁 事务 索引
查询 排序 分页 过滤 匹配 替换 删除 添加 修改 创建 打开 关闭 读取 写入 发送 接收 转换 验证 比较 计算 统计 很好 太大 如果 因为 所以 但是 然后 现在 这里
那里 什么 怎么 为什么 谁 应该 必须 可能 一定 也许 非常 特别 全部 部分 其他 相同 不同 新 旧
"""

_HI = """
है के में की से और को का यह पर नहीं हम कि एक भी तो ने लिए हो कर सर्वर डेटा परीक्षण फ़ाइल
कोड समस्या उपयोगकर्ता संदेश सत्र खोज परिणाम समय आज कल अभी पूरा अपडेट त्रुटि विफल सफल जाँच
विन्यास वातावरण कार्य प्रगति शाखा विलय समीक्षा डिज़ाइन दस्तावेज़ सुविधा प्रदर्शन स्मृति
डिस्क नेटवर्क संपर्क प्रयास कतार प्रक्रिया अनुमति कुंजी टोकन मौसम बैठक योजना लक्ष्य टीम
ग्राहक उत्पाद मूल्य आदेश भुगतान वापसी गोदाम पता फ़ोन ईमेल चित्र भाषा अनुवाद मॉडल प्रशिक्षण
मापदंड सीखना तरीका सूची शब्दकोश संख्या शर्त अपवाद वापस बुलाना आयात मॉड्यूल स्थापना
निर्भरता बैकअप निगरानी चेतावनी मापन विश्लेषण रिपोर्ट सारांश निर्णय चर्चा सुझाव सहमत
प्रतीक्षा शुरू समाप्त जारी रुकना तेज़ धीमा सुरक्षा कमज़ोरी संपीड़न अपलोड डाउनलोड समानांतर
ताला लेनदेन अनुक्रमणिका प्रश्न क्रम पृष्ठ छानना मिलान बदलना हटाना जोड़ना संशोधन बनाना
खोलना बंद पढ़ना लिखना भेजना प्राप्त रूपांतरण सत्यापन तुलना गणना अगर क्योंकि इसलिए लेकिन
फिर यहाँ वहाँ क्या कैसे क्यों कौन चाहिए ज़रूर शायद बहुत विशेष सभी भाग अन्य समान अलग नया
पुराना किताब मेज़ घर शहर देश पानी रास्ता दिन रात काम
"""
_LISTED = {"zh": _ZH, "hi": _HI}


@dataclass(frozen=True)
class Text:
    content: str
    language: str


@dataclass(frozen=True)
class SearchQuery:
    """`target`: the position of the text that it was made from."""

    kind: str
    language: str
    query: str
    target: int


@dataclass(frozen=True)
class Vocabulary:
    words: Sequence[str]
    cumulative: Sequence[float]

    def choose(self, random_: random.Random, count: int) -> list[str]:
        return random_.choices(self.words, cum_weights=self.cumulative, k=count)


@cache
def vocabulary(language: str) -> Vocabulary:
    """Words with their cumulative frequencies, the most frequent ones first."""
    if language in _LISTED:
        listed = _LISTED[language].split()
        return Vocabulary(
            listed, list(itertools.accumulate(1 / (n + 3) for n in range(len(listed))))
        )
    counted = SpellChecker(language=language).word_frequency.dictionary
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:VOCABULARY]
    words = [word for word, _ in ranked]
    return Vocabulary(words, list(itertools.accumulate(count for _, count in ranked)))


def make_texts(count: int, random_: random.Random) -> list[str]:
    """The contents alone."""
    return [text.content for text in list_texts(count, random_)]


def list_texts(count: int, random_: random.Random) -> list[Text]:
    languages = random_.choices(list(LANGUAGES), list(LANGUAGES.values()), k=count)
    return [Text(_write(language, random_), language) for language in languages]


def _write(language: str, random_: random.Random) -> str:
    words = vocabulary(language).choose(random_, WORDS_A_MESSAGE)
    if language in UNSPACED:
        words[8] += "\uff0c"
        words[16] += "。"
        return "".join(words) + "。"
    if language == "en" and random_.random() < CODE_SHARE:
        for place in random_.sample(range(2, WORDS_A_MESSAGE), 2):
            words[place] = random_.choice(_CODE)(random_)
    stop = "।" if language == "hi" else "."
    words[9] += ","
    words[15] += stop
    words[16] = words[16].capitalize()
    words[0] = words[0].capitalize()
    return " ".join(words) + stop


def _names(random_: random.Random, count: int) -> list[str]:
    """Words as identifiers are made of, which are not the most frequent ones."""
    words = vocabulary("en").words
    return [
        words[int(random_.paretovariate(0.7) * 100) % 8_000].replace("'", "") for _ in range(count)
    ]


def _snake(random_: random.Random) -> str:
    return "_".join(_names(random_, 2))


def _camel(random_: random.Random) -> str:
    first, *further = _names(random_, random_.choice((2, 3)))
    return first + "".join(map(str.capitalize, further))


def _path(random_: random.Random) -> str:
    first, *further = _names(random_, 3)
    return f"src/{first}/{'_'.join(further)}.{random_.choice(('py', 'ts', 'go'))}:{random_.randrange(900)}"


def _url(random_: random.Random) -> str:
    site, page = _names(random_, 2)
    return f"https://{site}.example.com/{page}?id={random_.randrange(10_000)}"


def _code(random_: random.Random) -> str:
    return f"{random_.choice(('ERR', 'E', 'HTTP', 'WARN'))}_{random_.randrange(1000, 9999)}"


def _hash(random_: random.Random) -> str:
    return f"{random_.getrandbits(160):040x}"


_CODE: tuple[Callable[[random.Random], str], ...] = (
    _snake,
    _snake,
    _camel,
    _camel,
    _path,
    _url,
    _code,
    _hash,
)


# Queries


def mistype(word: str, random_: random.Random) -> str:
    """The word with one typo: a letter missing, doubled or wrong, or two swapped."""
    place = random_.randrange(len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    match random_.randrange(4):
        case 0:
            return before + after
        case 1:
            return before + letter + letter + after
        case 2:
            return before + random_.choice(word.replace(letter, "") or "x") + after
    return before + after[0] + letter + after[1:]


def make_queries(
    texts: Sequence[Text], kind: str, count: int, random_: random.Random
) -> list[SearchQuery]:
    """Queries of a kind, of all languages in turns where the kind has several."""
    counted = Counter(word for text in texts[:20_000] for word in _words(text))
    made: list[SearchQuery] = []
    languages = itertools.cycle(["en"] if kind == "identifier" else LANGUAGES)
    positions = _positions(texts, random_)
    for language in itertools.islice(languages, count):
        for position in positions[language]:
            query = _QUERIES[kind](texts[position], counted, random_)
            if query is not None:
                made.append(SearchQuery(kind, language, query, position))
                break
    return made


def _positions(texts: Sequence[Text], random_: random.Random) -> dict[str, Iterator[int]]:
    order = random_.sample(range(len(texts)), min(len(texts), 50_000))
    by_language: dict[str, list[int]] = {language: [] for language in LANGUAGES}
    for position in order:
        by_language[texts[position].language].append(position)
    return {language: iter(positions) for language, positions in by_language.items()}


def _words(text: Text) -> list[str]:
    """The words of a text without code; of Chinese, stretches of its letters."""
    if text.language in UNSPACED:
        letters = "".join(filter(str.isalpha, text.content))
        return [letters[start : start + 4] for start in range(0, len(letters) - 4, 4)]
    return [
        word
        for raw in text.content.split()
        if (word := raw.strip(".,।").lower()) and not _is_code(word)
    ]


def _is_code(word: str) -> bool:
    return any(sign in word for sign in "_/:0123456789'")


def _three(text: Text, random_: random.Random) -> list[str] | None:
    """Three words that stand near each other, one of them long enough for a typo."""
    words = _words(text)
    if len(words) < 4:
        return None
    start = random_.randrange(len(words) - 3)
    chosen = words[start : start + 3]
    return chosen if max(map(len, chosen)) >= 4 else None


def _with_typos(count: int) -> Callable[[Text, Counter[str], random.Random], str | None]:
    def make(text: Text, _: Counter[str], random_: random.Random) -> str | None:
        chosen = _three(text, random_)
        if chosen is None:
            return None
        longest = sorted(range(3), key=lambda place: -len(chosen[place]))[:count]
        for place in longest:
            if len(chosen[place]) < 4:
                return None
            chosen[place] = mistype(chosen[place], random_)
        return " ".join(chosen)

    return make


def _swapped(text: Text, _: Counter[str], random_: random.Random) -> str | None:
    chosen = _three(text, random_)
    return None if chosen is None else " ".join([chosen[2], chosen[0], chosen[1]])


def _identifier(text: Text, _: Counter[str], random_: random.Random) -> str | None:
    """An identifier, code, path or hash of the text, as somebody else would write it."""
    codes = [word.strip(".,") for word in text.content.split() if _is_code(word.lower())]
    codes = [code for code in codes if "_" in code or "/" in code or len(code) > 30]
    if not codes:
        return None
    code = random_.choice(codes)
    if "/" in code:
        return code.rsplit("/", 1)[-1].split(":")[0].split("?")[0]
    if len(code) > 30:
        return code[: random_.randrange(7, 13)]
    parts = code.split("_")
    return random_.choice(
        (code, " ".join(parts), "-".join(parts), parts[0] + "".join(map(str.capitalize, parts[1:])))
    )


def _rare(text: Text, counted: Counter[str], random_: random.Random) -> str | None:
    words = [word for word in _words(text) if len(word) >= 4]
    return min(words, key=lambda word: (counted[word], word)) if words else None


def _common(text: Text, counted: Counter[str], random_: random.Random) -> str | None:
    words = list(dict.fromkeys(_words(text)))
    return (
        " ".join(sorted(words, key=lambda word: (-counted[word], word))[:3])
        if len(words) > 3
        else None
    )


_QUERIES: dict[str, Callable[[Text, Counter[str], random.Random], str | None]] = {
    "one typo": _with_typos(1),
    "two typos": _with_typos(2),
    "swapped words": _swapped,
    "identifier": _identifier,
    "rare word": _rare,
    "common words": _common,
}
