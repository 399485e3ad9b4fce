"""What a text encoder does not read of a text: the end behind its limit, and scripts and languages that it was hardly
made for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set

from mmsent.config import Clean
from mmsent.data.text import clean_text

LETTERS_PER_TOKEN = 1.5  # below it, words fall apart into single letters; docs/decisions.md says why
TOKENS_PER_WORD = 1.5  # above it, a language's common words of LONG letters fall apart, and it is hardly known
LONG = 5
_FEWEST, _MOST = 6, 400  # letters of a text that are looked at
_FEWEST_WORDS, _FEWEST_FOUND, _SHARE = 5, 2, 0.15  # words of a text; those of a language, and their share of all
_WORD = re.compile(r"[^\W\d_]+")

# Common words of languages in Latin script, without those that English posts hold too, such as "in", "die" and "no".
_COMMON = {
    "English": """
        the to and of in is for you my it a i on this that with be at so me are was we have your do no not all
        just but up out like get when what if can they he she his her from will go as an am by or who how us our
        has been one about now day new good love time more there their them were here only some than then too
        very would had its
    """,
    "French": """
        le la les des du de et un une est sont dans pour avec que qui pas ce cette mon ma mes je tu il elle nous
        vous ils sur au aux par mais plus tout très bien être avoir fait ai suis où quand comme même après
        encore toujours jamais aujourd hui maintenant beaucoup depuis pendant pourquoi parce vraiment quelque
        sans merci notre leur
    """,
    "German": """
        der das und ist nicht ein eine einen einem einer ich du er sie wir ihr es mit auf für von zu zum zur den
        dem des im sich auch nach bei aus wie noch nur mein meine meinen unser unsere hat habe haben sind sehr
        wenn aber dass immer heute wieder schon nichts kein keine warum jetzt danke werden wurde können müssen
        endlich zwischen vielleicht
    """,
    "Spanish": """
        el la los las de del que en un una por para con se mi es su al lo como más pero le ya muy todo esta este
        yo tu sin sobre hay cuando también porque siempre nunca después ahora desde hasta estoy están hacer
        gracias nuestro mejor donde nada quiero
    """,
    "Italian": """
        il lo la gli le di del della che è un una per con non si mi ti ci sono ha ho hai dal dalla al alla nel
        nella questo questa più ma come mio mia tutto tutta anche quando molto sempre mai dopo perché così
        ancora grazie adesso essere fatto nostra abbiamo niente senza
    """,
    "Portuguese": """
        os de das dos que em um uma para por com não se é ao à na meu minha seu sua mais mas como foi muito está
        estou eu você quando também já sempre nunca depois agora porque mesmo hoje obrigado fazer nosso nada
        isso tudo até sem
    """,
    "Dutch": """
        de het een en van ik je niet op voor er maar om aan hij ze zijn bij ook naar dit deze mijn onze geen
        wel nog heel al als wat hebben heeft heb ben werd wordt weer altijd vandaag omdat waarom zonder tegen
        misschien eindelijk
    """,
    "Indonesian": """
        yang dan di ini itu dengan untuk tidak dari ke akan pada juga saya aku kamu kami kita mereka ada bisa
        sudah karena seperti lagi sekali banget sangat atau saat dia tapi kalau apa kenapa sekarang selalu semua
        hari selamat terima kasih bukan setelah
    """,
    "Turkish": """
        bir ve bu için çok ne de ile ben sen biz siz ama daha gibi kadar var yok mı mi mu değil en şey hiç sonra
        önce olarak şimdi artık neden nasıl güzel iyi büyük bugün teşekkürler bütün tüm zaman olan oldu olsun
        yine ki hep kimse beri son ilk gün evet hayır bana sana beni seni benim birlikte belki biraz böyle diye
    """,
}

Lengths = Callable[[list[str]], Sequence[int]]  # the number of tokens of each text, special ones included

HARDLY_READ = (
    "the text is in a language or script that the text encoder hardly knows: its words fall apart into single letters"
)
OTHER_LANGUAGE = "the text seems to be in a language that the text encoder hardly knows: its common words fall apart"


def reading_problems(texts: Sequence[str], lengths: Lengths, limit: int) -> list[str]:
    """What is not read, or hardly, of each of N texts; empty where all is. limit: tokens that the encoder reads."""
    out = []
    for n, odd in zip(lengths(list(texts)), hardly_read(texts, lengths), strict=True):
        cut = f"the text encoder reads {limit} of the text's {n} tokens, not its end" if n > limit else ""
        out.append("; ".join(filter(None, (cut, odd))))
    return out


def hardly_read(texts: Sequence[str], lengths: Lengths) -> list[str]:
    """Why each of N texts is hardly read, without its links and mentions: HARDLY_READ, OTHER_LANGUAGE, or "" where it
    is read."""
    words = [_WORD.findall(clean_text(text[: 4 * _MOST], (Clean.links, Clean.mentions))) for text in texts]
    plain = [" ".join(some)[:_MOST] for some in words]
    letters = [len(text.replace(" ", "")) for text in plain]
    samples = [[word for word in common.split() if len(word) >= LONG] for common in _COMMON.values()]
    sizes = lengths([" ".join(sample) for sample in samples])
    empty, *tokens = lengths(["", *plain])
    known, foreign = set(_COMMON["English"].split()), set[str]()
    for common, sample, n in zip(_COMMON.values(), samples, sizes, strict=True):
        (known if n - empty <= TOKENS_PER_WORD * len(sample) else foreign).update(common.split())
    foreign -= known
    out = []
    for some, size, n in zip(words, letters, tokens, strict=True):
        apart = size >= _FEWEST and size < LETTERS_PER_TOKEN * (n - empty)
        out.append(HARDLY_READ if apart else OTHER_LANGUAGE if _is_foreign(some, known, foreign) else "")
    return out


def _is_foreign(words: Sequence[str], known: Set[str], foreign: Set[str]) -> bool:
    """Whether words are rather of the foreign languages than of the known ones."""
    plain = [word.casefold() for word in words]
    found = sum(word in foreign for word in plain)
    return (
        len(plain) >= _FEWEST_WORDS
        and found >= max(_FEWEST_FOUND, _SHARE * len(plain))
        and found > sum(word in known for word in plain)
    )
