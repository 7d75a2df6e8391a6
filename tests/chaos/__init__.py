"""Faults on real processes, and the proof that readers end with exactly what the worker wrote.

`kit/` starts Redis, gateways and workers, relays what runs between them (`tests/proxy.py`), follows
(`tests/followers.py`), counts and compares. `scenarios/` says what is broken when. A scenario is written once
and played in two sizes: short in `make test`, long in `make chaos`, which prints the table.

    @scenario(1, "gateway killed")              # number, name in the table; short=False: long form only
    async def gateway_killed(world: World) -> None:
        one, other = await world.gateway(), await world.gateway()
        worker = await world.worker()
        await worker.begin("job")
        crowd = await world.follow(["job"], world.size(50, 500), [one, other])
        for _ in world.rounds(1, 10):
            await worker.write("job", 100)      # 100 events; returns when they were reported
            with world.tally.injecting():       # counts the fault; its block lasts until all is well again
                await one.kill()
                await crowd.caught_up(worker)
            await one.start()
        await worker.end("job")
        await crowd.ended()
        await world.check()                     # all invariants; ends all processes

Any module in `scenarios/` is found by itself. What to know:

- Between a gateway or worker and Redis there may be a relay: `p = world.proxy(world.redis.url)`, then
  `world.gateway(p.url)`. It can `cut`, `silence`, `stall`, `delay`, `refuse`, and lay a `trap` for bytes.
- `world.settings` are those of all processes started later; `world.gateway(lease_seconds=2)` for one only.
- A task that ends otherwise than its worker's record says needs a word: `world.endings["job"] =
  Ending("failed", "worker_lost", partial=True)`. The newest run of a task counts.
- Readers may be told to begin anew only for the reasons in `world.resets`; none, unless a scenario says so.
- All chance comes from `world.random`, whose seed is printed.
- `world.size(short, long)` chooses by the form; `world.rounds(short, long)` also moves the progress bar.
- Wait for conditions (`crowd.caught_up`, `crowd.all`, `eventually_async`); sleep only for a fault's length.
"""
