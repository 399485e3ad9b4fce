"""What a client may ask for, and how much work may wait."""

from __future__ import annotations

from mmsent.config import OnCommandLine, Panel, Settings, setting

_RUN = OnCommandLine(panel=Panel.running)


class Limits(Settings):
    """Bounds of the service. Sizes in bytes, times in seconds."""

    batch_size: int | None = setting(
        None,
        "Posts that go through the encoders together.",
        OnCommandLine(shown="16; 1 in half precision, where answers would depend on their batch", panel=Panel.running),
        ge=1,
        le=256,
    )
    batch_wait: float = setting(0.005, "Seconds a post waits for others while the encoders are idle.", _RUN, ge=0, le=1)
    queue: int = setting(256, "Posts that may be under way; others get 503 and are to come again.", _RUN, ge=1)
    explanations: int = setting(4, "Explanations that may be under way.", ge=1)
    body: int = setting(32 << 20, "Bytes of a request.", OnCommandLine("--max-body", "32 MiB", Panel.running), ge=1024)
    memory: int = setting(256 << 20, "Bytes of all requests that are being read.", ge=1024)
    pixels: int = setting(
        50_000_000, "Pixels of an image.", OnCommandLine("--max-pixels", "50 million", Panel.running), ge=1
    )
    text: int = setting(10_000, "Characters of a text.", OnCommandLine("--max-text", "10,000", Panel.running), ge=1)
    posts: int = setting(64, "Posts of a request.", OnCommandLine("--max-posts", None, Panel.running), ge=1)
    timeout: float = setting(30.0, "Seconds until a post must be answered.", _RUN, gt=0)
    explain_timeout: float = setting(120.0, "Seconds until an explanation must be answered.", gt=0)
    read_timeout: float = setting(20.0, "Seconds until a request must have arrived.", gt=0)
    drain: float = setting(30.0, "Seconds until a stopping service gives up on what it has taken.", ge=0)

    @property
    def most_posts(self) -> int:
        """Posts of one request: with more than the queue holds it could never be taken."""
        return min(self.posts, self.queue)

    @property
    def most_memory(self) -> int:
        """Bytes of all requests that are being read: one of the largest always finds room."""
        return max(self.memory, self.body)
