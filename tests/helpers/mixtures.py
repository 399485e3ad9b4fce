"""Data sets whose texts come from two programs, in UTF-8 and in another encoding, and how they are read.

python -m tests.helpers.mixtures --write docs/encodings.md     reads every mixture and writes the table
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mmsent.data.encodings import decide_encoding

PHRASES = {
    "gb18030": "今天天气很好|我们去公园玩|大家都很开心|这家餐厅的菜太咸了|服务态度也不好|下次再也不来了|"
    "早上赶地铁差点迟到|晚上和朋友看电影|情节有点无聊|妈妈做的红烧肉最好吃|周末加班真的很累|"
    "希望项目顺利上线|新买的手机电池不耐用|退货流程太麻烦|孩子第一次叫爸爸|感动得想哭|图书馆里很安静|"
    "飞机晚点三个小时|行李也丢了|春天的樱花开得正好|下雨天只想睡觉|谢谢你一直陪着我",
    "big5": "今天天氣很好|我們去公園玩|大家都很開心|這家餐廳的菜太鹹了|服務態度也不好|下次再也不來了|"
    "早上趕捷運差點遲到|晚上和朋友看電影|情節有點無聊|媽媽做的紅燒肉最好吃|週末加班真的很累|"
    "希望專案順利上線|新買的手機電池不耐用|退貨流程太麻煩|孩子第一次叫爸爸|感動得想哭|圖書館裡很安靜|"
    "飛機晚點三個小時|行李也丟了|春天的櫻花開得正好|下雨天只想睡覺|謝謝你一直陪著我",
    "shift_jis": "今日はとても天気がいい|みんなで公園に行きました|楽しかったです|この店の料理は塩辛い|"
    "接客も良くない|二度と来ません|朝の電車に遅れそうだった|夜は友達と映画を見た|話は少し退屈|"
    "母のカレーが一番おいしい|週末も仕事で疲れた|返品の手続きが面倒|子どもが初めてパパと呼んだ|"
    "泣きそうになった|飛行機が三時間遅れた|荷物もなくなった|桜がきれいに咲いている|いつもありがとう",
    "euc_kr": "오늘 날씨가 정말 좋아요|모두 함께 공원에 갔어요|너무 즐거웠어요|이 식당 음식은 너무 짜요|"
    "서비스도 별로예요|다시는 안 올 거예요|아침에 지각할 뻔했다|저녁에 친구와 영화를 봤다|"
    "이야기가 조금 지루했다|주말에도 일해서 피곤하다|반품 절차가 귀찮다|눈물이 날 것 같았다|"
    "비행기가 세 시간 늦었다|짐도 잃어버렸다|벚꽃이 예쁘게 피었다|항상 고마워요",
    "cp1251": "Сегодня очень хорошая погода|мы все пошли в парк|было весело|еда слишком солёная|больше не приду|"
    "утром чуть не опоздал|вечером смотрели фильм|сюжет скучный|мамин борщ самый вкусный|"
    "в выходные опять работа|новый телефон быстро садится|хотелось плакать|"
    "самолёт опоздал на три часа|багаж потеряли|спасибо, что ты рядом",
    "cp1252": "très déçu par ce café|la crème brûlée était parfaite|garçon naïf à l’école|ça alors, quel été|"
    "Straße gesperrt|señor, mañana por la mañana|el niño comió piña|über alles müde heute|"
    "größer und süßer|£5 for a coffee, don’t|“yes” – ok…|déjà vu à la télé|merci beaucoup, à bientôt|"
    "j’ai raté le métro|bon appétit à tous|não é possível, coração",
}
NAMES = {
    "gb18030": "GB18030",
    "big5": "Big5",
    "shift_jis": "Shift-JIS",
    "euc_kr": "EUC-KR",
    "cp1251": "Windows-1251",
    "cp1252": "Windows-1252",
}
ENGLISH = [
    "what a lovely day",
    "so tired of this",
    "see http://t.co/Ab1 now",
    "RT @friend: good fun",
    "#MondayMood again",
    "bus is late",
]
SIZES = (20, 60, 200, 600, 2000)  # texts beyond ASCII; as many in English stand beside them
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
HEAD = """# Mixed text encodings

Written by `python -m tests.helpers.mixtures --write docs/encodings.md`; a test does the same and compares.

Each row is 35 data sets: 20, 60, 200, 600 and 2,000 short texts beyond ASCII in one language, of which 1, 2, 5, 10,
20, 35 or 50% (at least one) are in the encoding named and the others in UTF-8, and as many English texts. In the second
row of a pair the shares are the other way round. Every text counts once:

- **right**: read as it was written.
- **set aside**: quarantined with a reason, because too little speaks for any encoding.
- **wrong, warned**: read wrong, and `mmsent check`, `extract` and `prepare` warn that the texts' encodings are mixed.
- **silently wrong**: read wrong without a word.

How it is decided: [data sets](reference/data-sets.md#text-encoding).

| texts in | share of the data set | right | set aside | wrong, warned | silently wrong |
|---|---|---|---|---|---|
"""


def mixture(codec: str, n: int, share: float, utf8_is_rare: bool) -> list[tuple[bytes, str]]:
    """n texts beyond ASCII and n in English, as bytes and as they were written."""
    chance = random.Random(f"{codec} {n} {share} {utf8_is_rare}")
    some, texts = max(1, round(share * n)), []
    for i in range(n):
        words = chance.sample(PHRASES[codec].split("|"), chance.choice((1, 1, 2, 3)))
        if chance.random() < 0.5:
            words.insert(chance.randrange(len(words) + 1), chance.choice(ENGLISH))
        written = " ".join(words)
        texts.append((written.encode(codec if (i < some) != utf8_is_rare else "utf-8"), written))
    texts += [(written.encode(), written) for written in chance.choices(ENGLISH, k=n)]
    chance.shuffle(texts)
    return texts


def outcomes(codec: str, n: int, share: float, utf8_is_rare: bool) -> Counter[str]:
    """How many texts of a mixture come out in which way."""
    texts = mixture(codec, n, share, utf8_is_rare)
    found = decide_encoding([raw for raw, _ in texts])
    out: Counter[str] = Counter()
    for raw, written in texts:
        try:
            right = found.decode(raw) == written
        except UnicodeError:
            out["set aside"] += 1
        else:
            out["right" if right else "wrong, warned" if found.doubt else "silently wrong"] += 1
    return out


def table() -> Iterator[tuple[str, str, Counter[str]]]:
    """A row per encoding and direction: the encoding's name, the shares, the outcomes."""
    for codec, name in NAMES.items():
        for rare in (False, True):
            total: Counter[str] = Counter()
            for n in SIZES:
                for share in SHARES:
                    total += outcomes(codec, n, share, rare)
            yield name, "50 to 99%" if rare else "1 to 50%", total


def document() -> str:
    """The page with the table."""
    columns = ("right", "set aside", "wrong, warned", "silently wrong")
    rows = (f"| {name} | {share} | {' | '.join(f'{n[c]:,}' for c in columns)} |" for name, share, n in table())
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, required=True)
    parser.parse_args().write.write_text(document(), encoding="utf-8")
