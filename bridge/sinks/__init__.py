"""What shows a task somewhere else. A sink is a function that takes a task's views, and knows no gateway.

    async def show(views: AsyncIterable[View]) -> None: ...

The views come from `bridge.client.AsyncClient.follow`, or from anywhere else: each is the task as it is at
that moment, the last one has ended. A target that is slower than the task reads them with `newest.Newest`,
which leaves out what is superseded. `docs/sinks.md` shows how to write one.
"""
