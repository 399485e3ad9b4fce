"""What a client may ask for, and how much work may wait."""

from __future__ import annotations

from pydantic import Field

from mmsent.config import Settings


class Limits(Settings):
    """Bounds of the service. Sizes in bytes, times in seconds.

    batch_size: posts that go through the encoders together; None: 16, or 1 where a half precision makes answers depend
    on their batch. batch_wait: how long a post waits for others while the encoders are idle. queue: posts taken and not
    answered yet; what comes beyond is told to come again. memory: bytes of all requests that are being read. timeout:
    until a post is answered; explain_timeout: until an explanation is. drain: until a stopping service gives up on what
    it has taken.
    """

    batch_size: int | None = Field(None, ge=1, le=256)
    batch_wait: float = Field(0.005, ge=0, le=1)
    queue: int = Field(256, ge=1)
    explanations: int = Field(4, ge=1)
    body: int = Field(32 << 20, ge=1024)
    memory: int = Field(256 << 20, ge=1024)
    pixels: int = Field(50_000_000, ge=1)
    text: int = Field(10_000, ge=1)
    posts: int = Field(64, ge=1)
    timeout: float = Field(30.0, gt=0)
    explain_timeout: float = Field(120.0, gt=0)
    read_timeout: float = Field(20.0, gt=0)
    drain: float = Field(30.0, ge=0)

    @property
    def most_posts(self) -> int:
        """Posts of one request: with more than the queue holds it could never be taken."""
        return min(self.posts, self.queue)

    @property
    def most_memory(self) -> int:
        """Bytes of all requests that are being read: one of the largest always finds room."""
        return max(self.memory, self.body)
