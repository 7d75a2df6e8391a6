"""Shows a task in a Mattermost channel, as one post that grows: python mattermost.py TASK CHANNEL_ID

The environment says where: MATTERMOST_URL, MATTERMOST_TOKEN (of a bot), BRIDGE_GATEWAY_URL.
"""

import asyncio
import os
import sys

import httpx

from bridge.client import AsyncClient
from bridge.sinks.newest import Newest

EDIT_SECONDS = 0.5
MOST_CHARACTERS = 16_000  # Mattermost takes 16,383


class Post:
    """One post, made when there is something to say, and edited from then on."""

    def __init__(self, http: httpx.AsyncClient, channel: str) -> None:
        self.http, self.channel = http, channel
        self.id, self.says = "", ""

    async def say(self, text: str) -> None:
        """Make it say that; the same again is not sent."""
        if text == self.says:
            return
        if not self.id:
            made = await self.ask("POST", "/posts", {"channel_id": self.channel, "message": text})
            self.id = made["id"]
        else:
            await self.ask("PUT", f"/posts/{self.id}/patch", {"message": text})
        self.says = text

    async def ask(self, method, path, content):
        """One request, repeated while the server has too much to do."""
        while True:
            answer = await self.http.request(method, path, json=content)
            if answer.status_code not in (429, 502, 503):
                return answer.raise_for_status().json()
            await asyncio.sleep(float(answer.headers.get("retry-after", 1)))


def text_of(view) -> str:
    """What the post should say."""
    text = view.text[:MOST_CHARACTERS]
    if view.state == "failed":
        text += f"\n\n*Failed: {(view.error or {}).get('message', '')}*"
    elif view.state == "cancelled":
        text += "\n\n*Stopped.*"
    return text or (view.message or "")


async def show(views, post: Post) -> None:
    """The sink: a function that takes a task's views."""
    async with Newest(views) as newest:
        async for view in newest.every(EDIT_SECONDS):
            await post.say(text_of(view))


async def main(task_id: str, channel: str) -> None:
    """Follow a task, and show it."""
    headers = {"Authorization": f"Bearer {os.environ['MATTERMOST_TOKEN']}"}
    url = os.environ["MATTERMOST_URL"] + "/api/v4"
    async with httpx.AsyncClient(base_url=url, headers=headers) as http:
        async with AsyncClient(os.environ.get("BRIDGE_GATEWAY_URL", "http://127.0.0.1:8620")) as client:
            await show(client.follow(task_id), Post(http, channel))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
