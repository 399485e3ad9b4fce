"""mmsent: sentiment of posts from frozen encoders and light fusion heads.

`import mmsent` loads neither torch nor any encoder library; each submodule imports what it needs.
"""

__version__ = "0.1.0"
