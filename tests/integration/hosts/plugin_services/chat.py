"""A chat on Redis: channels, lists and streams, websockets, the lifespan given by hand."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from faststream import Response
from faststream.redis import ListSub, PubSub, StreamSub
from faststream.redis.fastapi import Context, RedisChannelMessage, RedisRouter
from pydantic import BaseModel, field_validator


class Post(BaseModel):
    author: str
    text: str

    @field_validator("text")
    @classmethod
    def check(cls, text: str) -> str:
        if not text.strip():
            msg = "A post needs a text."
            raise ValueError(msg)
        return text


class Rooms:
    """The rooms of this process."""

    def __init__(self) -> None:
        self.posts: dict[str, list[str]] = {}
        self.archived: list[str] = []
        self.jobs: list[Any] = []
        self.open_files = 0
        self.events: list[str] = []

    def add(self, room: str, post: Post) -> None:
        self.posts.setdefault(room, []).append(f"{post.author}: {post.text}")


rooms = Rooms()
router = RedisRouter("redis://127.0.0.1:1", health_check_interval=5)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
    async with router.lifespan_context(app) as state:
        rooms.events.append("up")
        yield {**(state or {}), "rules": 3}
    rooms.events.append("down")


app = FastAPI(title="Chat", lifespan=lifespan)


async def settings(app: FastAPI) -> dict[str, str]:
    rooms.events.append(f"{app.title} after")
    return {"motto": "be kind"}


router.after_startup(settings)


def open_file() -> Iterator[list[str]]:
    rooms.open_files += 1
    yield rooms.archived
    rooms.open_files -= 1


def get_author(body: Annotated[Any, Context("message.headers")]) -> str:
    return str(body.get("author", "unknown"))


class Moderation:
    words = ("spam", "scam")

    def allows(self, post: Post) -> bool:
        return not any(word in post.text for word in self.words)


@router.subscriber(channel=PubSub("rooms.{room}", pattern=True))
async def receive(
    post: Post,
    room: str,
    message: RedisChannelMessage,
    moderation: Annotated[Moderation, Depends()],
) -> None:
    assert message
    if moderation.allows(post):
        rooms.add(room, post)
        await router.broker.publish(post.text, list="archive", headers={"author": post.author})


@router.subscriber(list=ListSub("archive"))
async def archive(
    text: str,
    author: Annotated[str, Depends(get_author)],
    file: Annotated[list[str], Depends(open_file)],
) -> None:
    assert rooms.open_files == 1
    file.append(f"{author} {text}")


@router.subscriber(stream=StreamSub("jobs"))
@router.publisher(channel="done")
def work(body: dict[str, Any]) -> Response:
    rooms.jobs.append(body)
    return Response({"job": body["job"]}, headers={"worker": "7"})


@router.subscriber(channel="done")
async def done(body: dict[str, Any], headers: Annotated[Any, Context("message.headers")]) -> None:
    rooms.jobs.append([body["job"], headers["worker"]])


@app.post("/rooms/{room}")
async def post(room: str, post: Post) -> None:
    if room == "closed":
        raise HTTPException(409, "This room is closed.")
    await router.broker.publish(post, f"rooms.{room}")


@app.get("/rooms/{room}")
async def show(room: str, request: Request) -> list[str]:
    return [request.state.motto, str(request.state.rules), *rooms.posts.get(room, [])]


@app.websocket("/ws/{room}")
async def chat(websocket: WebSocket, room: str) -> None:
    await websocket.accept()
    while (text := await websocket.receive_text()) != "bye":
        await router.broker.publish({"author": "socket", "text": text}, f"rooms.{room}")
        await websocket.send_text(json.dumps(rooms.posts[room]))
    await websocket.close()


@app.put("/jobs/{job}")
async def put_job(job: int) -> None:
    await router.broker.publish({"job": job}, stream="jobs")


ROUTERS = [router]
