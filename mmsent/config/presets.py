"""The named encoder pairs."""

from __future__ import annotations

from mmsent.config.fields import Settings, default


class Preset(Settings):
    """A named encoder pair, the recipe that suits its features, and the cosines from which pictures and texts are
    near-duplicates. Those of `offline` were chosen by looking at pairs (docs/notes.md); the default, for all other
    encoders, was not, and is on the strict side.

    tokens: the text blocks whose input is stored; widths: of the image and the text features; gigabytes: size of the
    weights; languages: of the texts; licence: of the weights, as their model cards have it; measured: whether results
    of it stand in docs/results.md."""

    image: str
    text: str
    recipe: str = "paper"
    near_image: float = 0.95
    near_text: float = 0.95
    tokens: str = ""
    widths: tuple[int, int]
    gigabytes: float
    languages: str = "English"
    licence: str
    measured: bool = False
    summary: str


_CLIP = "open_clip:ViT-L-14-336-quickgelu:openai"

PRESETS: dict[str, Preset] = {
    "clip-l14-336": Preset(
        image=_CLIP,
        text=_CLIP,
        widths=(768, 768),
        gigabytes=1.7,
        licence="Apache-2.0",
        summary="CLIP ViT-L/14@336px by OpenAI",
    ),
    "clip-l14-336+twitter": Preset(
        image=_CLIP,
        text=f"{_CLIP}+sentence-transformers:cardiffnlp/twitter-roberta-base-sentiment-latest",
        widths=(768, 1536),
        gigabytes=2.2,
        licence="Apache-2.0, CC-BY-4.0 (unchecked)",
        summary="the same, its texts also read by a RoBERTa that was trained on the sentiment of posts",
    ),
    "siglip2": Preset(
        image="open_clip:ViT-L-16-SigLIP2-384:webli",
        text="open_clip:ViT-L-16-SigLIP2-384:webli",
        widths=(1024, 1024),
        gigabytes=3.5,
        languages="many",
        licence="Apache-2.0",
        summary="SigLIP 2 ViT-L/16@384px by Google",
    ),
    "multilingual": Preset(
        image="timm:vit_base_patch16_siglip_256.v2_webli",
        text="sentence-transformers:paraphrase-multilingual-mpnet-base-v2",
        widths=(768, 768),
        gigabytes=1.5,
        languages="more than 50",
        licence="Apache-2.0",
        summary="the image tower of SigLIP 2 ViT-B/16@256px, and a multilingual sentence encoder",
    ),
    "small": Preset(
        image="open_clip:MobileCLIP2-S2:dfndr2b",
        text="open_clip:MobileCLIP2-S2:dfndr2b",
        widths=(512, 512),
        gigabytes=0.4,
        licence="Apple AMLR (research only)",
        summary="MobileCLIP2-S2 by Apple, for laptops",
    ),
    "offline": Preset(
        image="efficientnet-lite2",
        text="minilm-l6",
        recipe="offline",
        near_image=0.90,
        near_text=0.90,
        widths=(1280, 384),
        gigabytes=0.1,
        licence="Apache-2.0",
        measured=True,
        summary="EfficientNet-Lite2 and all-MiniLM-L6-v2",
    ),
    "offline-plus": Preset(
        image="efficientnet-lite2",
        text="minilm-l6+lexicon:vader",
        recipe="offline",
        near_image=0.90,
        widths=(1280, 391),
        gigabytes=0.1,
        licence="Apache-2.0, MIT",
        measured=True,
        summary="the pair `offline`, its texts also scored by the lexicon VADER",
    ),
    "offline-tuned": Preset(
        image="efficientnet-lite2",
        text="minilm-l6+lexicon:vader",
        recipe="tuned",
        near_image=0.90,
        tokens="text:2",
        widths=(1280, 391),
        gigabytes=0.1,
        licence="Apache-2.0, MIT",
        measured=True,
        summary="the pair `offline-plus`, and what enters the last two blocks of MiniLM, for heads that tune them",
    ),
    "mpnet-tuned": Preset(
        image="efficientnet-lite2",
        text="sentence-transformers:all-mpnet-base-v2+lexicon:vader",
        recipe="tuned",
        near_image=0.90,
        tokens="text:2",
        widths=(1280, 775),
        gigabytes=0.5,
        licence="Apache-2.0, MIT",
        measured=True,
        summary="as `offline-tuned` with all-mpnet-base-v2, which is four times as large as MiniLM",
    ),
}


def recipe_for(label: str) -> str:
    """The training recipe that suits a pair's features, by the pair's label."""
    return PRESETS[label].recipe if label in PRESETS else "paper"


def near_cosine(encoder: str, name: str) -> float:
    """The cosine from which pictures (`near_image`) or texts (`near_text`) of an encoder pair are near-duplicates."""
    return float(getattr(PRESETS[encoder], name) if encoder in PRESETS else default(Preset, name))
