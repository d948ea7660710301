"""Names under which a player may load a video: players cannot send a key."""

from __future__ import annotations

import secrets


class Tickets:
    """A ticket for each video; whoever was told one could ask with the key."""

    def __init__(self) -> None:
        self._of_video: dict[str, str] = {}
        self._videos: dict[str, str] = {}

    def of(self, video_id: str) -> str:
        """Return a video's ticket, which stays the same until the server ends."""
        if video_id not in self._of_video:
            ticket = self._of_video[video_id] = secrets.token_urlsafe(24)
            self._videos[ticket] = video_id
        return self._of_video[video_id]

    def video(self, ticket: str) -> str | None:
        """Return the video of a ticket, None if there is no such ticket."""
        return self._videos.get(ticket)

    def drop(self, video_id: str) -> None:
        """Let a video's ticket end."""
        self._videos.pop(self._of_video.pop(video_id, ""), None)
