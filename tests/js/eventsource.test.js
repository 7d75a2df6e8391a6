// Following by EventSource, which shows neither heartbeats nor reasons: what is done about that.

import assert from 'node:assert/strict'
import { afterEach, beforeEach, mock, test } from 'node:test'
import { FakeEventSource, Gateway, answer, never, polled, refused, settled, stopTime, watch } from './stage.js'

let pass
beforeEach(() => {
  FakeEventSource.made.length = 0
  pass = stopTime()
})
afterEach(() => mock.reset())

/** A page that follows by EventSource, up to the request. */
async function page(gateway = new Gateway(), options = {}) {
  const one = watch({ EventSource: FakeEventSource, fetch: gateway.fetch, ...options })
  await settled()
  return one
}

test('named events are folded, and the end closes the stream', async () => {
  const { task, views, states } = await page()
  const source = FakeEventSource.latest
  assert.equal(source.url, 'http://gateway.test/base/tasks/job/events')
  source.open()
  source.emit('state', '7-1', { state: 'running', attempt: 1 })
  source.emit('chunk', '7-2', { text: 'Hel' })
  source.emit('chunk', '7-3', { text: 'lo' })
  source.emit('end', '7-4', { state: 'succeeded' })
  const last = await task.done
  assert.deepEqual(views.map(({ text }) => text), ['', 'Hel', 'Hello', 'Hello'])
  assert.deepEqual([last.state, last.position], ['succeeded', '7-4'])
  assert.deepEqual(states(), ['connecting eventsource', 'open eventsource', 'closed eventsource'])
  assert.equal(source.readyState, 2)
  assert.equal(task.stats.requests, 1)
})

test('after the end nothing is left that could still happen', async () => {
  const { task } = await page()
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('end', '7-1', { state: 'succeeded' })
  await task.done
  await pass(3600)
  assert.equal(task.stats.requests, 1)
})

test('it is used where it fits: no headers, no fetch of their own, no cookies to be left away', async () => {
  const { fetch } = new Gateway(never, never, never)
  const EventSource = FakeEventSource
  globalThis.EventSource = EventSource
  try {
    for (const [options, made] of [
      [{}, 1],
      [{ EventSource, fetch }, 1],
      [{ fetch }, 0],
      [{ EventSource, fetch, headers: { authorization: 'x' } }, 0],
      [{ EventSource, fetch, credentials: 'omit' }, 0],
      [{ fetch, transport: 'eventsource' }, 1],
    ]) {
      FakeEventSource.made.length = 0
      const { task } = watch(options)
      await settled()
      assert.equal(FakeEventSource.made.length, made, Object.keys(options).join())
      task.close()
    }
  } finally {
    delete globalThis.EventSource
  }
})

test('credentials and a position reach it', async () => {
  const gateway = new Gateway(polled('7-3'))
  await page(gateway, { credentials: 'include', after: '7-3' })
  assert.deepEqual(gateway.requests, ['status?after=7-3'])
  assert.deepEqual(FakeEventSource.latest.options, { withCredentials: true })
  assert.equal(FakeEventSource.latest.url, 'http://gateway.test/base/tasks/job/events?after=7-3')
})

test('while nothing comes, the log is looked at after 3, 6, 12 and then every 15 seconds', async () => {
  const nothing = answer({ error: {} }, 404)
  const gateway = new Gateway(...Array.from({ length: 9 }, () => nothing))
  await page(gateway)
  FakeEventSource.latest.open()
  const asked = []
  for (let second = 1; second <= 51; second++) {
    await pass(1)
    if (gateway.requests.length > asked.length) asked.push(second)
  }
  assert.deepEqual(asked, [3, 9, 21, 36, 51])
  assert.equal(gateway.requests[0], 'status?after=0')

  FakeEventSource.latest.emit('chunk', '7-1', { text: 'a' })
  await pass(14)
  assert.equal(gateway.requests.length, 5)
  await pass(1)
  assert.equal(gateway.requests.at(-1), 'status?after=7-1')
})

test('a stream that is behind the log is mute: the poll is folded, and long polls follow', async () => {
  const gateway = new Gateway(polled('7-2', { text: 'Hello' }), never)
  const { task, views, states } = await page(gateway)
  FakeEventSource.latest.open()
  await pass(3)
  assert.deepEqual(views, [])
  await pass(1)
  assert.deepEqual(views.map(({ text }) => text), ['Hello'])
  assert.equal(FakeEventSource.latest.readyState, 2)
  assert.equal(gateway.requests.at(-1), 'status?after=7-2')
  assert.deepEqual(states().slice(-2), ['waiting eventsource', 'connecting long_poll'])
  assert.equal(task.stats.way, 'long_poll')
})

test('a stream that brings it within a second is not mute, and text comes once', async () => {
  const gateway = new Gateway(polled('7-2', { text: 'Hello' }))
  const { task, views } = await page(gateway)
  const source = FakeEventSource.latest
  source.open()
  await pass(3.9)
  source.emit('chunk', '7-2', { text: 'Hello' })
  await pass(10)
  assert.equal(FakeEventSource.latest, source)
  assert.equal(source.readyState, 1)
  assert.equal(task.view.text, 'Hello')
  assert.equal(views.length, 1)
})

test('a stream that had brought something, and is then behind, may just be dead: it is opened anew', async () => {
  const gateway = new Gateway(polled('7-2', { text: 'lo' }), polled('7-3', { text: '!' }), never)
  const { task } = await page(gateway)
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('chunk', '7-1', { text: 'Hel' })
  await pass(16)
  assert.equal(task.view.text, 'Hello')
  assert.equal(FakeEventSource.latest.url.split('/').at(-1), 'events?after=7-2')
  FakeEventSource.latest.open()
  await pass(4)
  assert.equal(task.view.text, 'Hello!')
  assert.equal(gateway.requests.at(-1), 'status?after=7-3')
})

test('an event while the log is looked at makes the look void', async () => {
  let respond
  const gateway = new Gateway(() => new Promise((resolve) => (respond = resolve)))
  const { task } = await page(gateway)
  FakeEventSource.latest.open()
  await pass(3)
  FakeEventSource.latest.emit('chunk', '7-1', { text: 'a' })
  respond(polled('7-2', { text: 'ab' })())
  await pass(5)
  assert.equal(task.view.text, 'a')
  assert.equal(FakeEventSource.made.length, 1)
})

test('an end that only the poll has seen is the end', async () => {
  const { task } = await page(new Gateway(polled('7-2', { text: 'Hello', state: 'succeeded' })))
  FakeEventSource.latest.open()
  await pass(4)
  assert.equal((await task.done).state, 'succeeded')
})

test('a look that fails says nothing about the stream', async () => {
  const gateway = new Gateway(refused, answer({}, 503), answer({}, 401), answer('no view'), never)
  await page(gateway)
  FakeEventSource.latest.open()
  await pass(3)
  await pass(6)
  await pass(12)
  await pass(15)
  await pass(15)
  await pass(10) // The fifth is never answered.
  await pass(14)
  assert.equal(gateway.requests.length, 5)
  assert.equal(FakeEventSource.made.length, 1)
  assert.equal(FakeEventSource.latest.readyState, 1)
})

test('a stream beside which two looks in a row fail is not said to be open, until there is a sign', async () => {
  const away = [refused, answer({}, 502)]
  const gateway = new Gateway(refused, polled('7-1'), ...away, refused, polled('7-1'), ...away)
  const { states } = await page(gateway)
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('chunk', '7-1', { text: 'a' })
  const told = []
  for (let look = 0; look < 8; look++) {
    await pass(15)
    told.push(states().at(-1).split(' ')[0])
  }
  assert.deepEqual(told, ['open', 'open', 'open', 'waiting', 'waiting', 'open', 'open', 'waiting'])
  FakeEventSource.latest.emit('chunk', '7-2', { text: 'b' })
  assert.equal(states().at(-1), 'open eventsource')
  assert.equal(states().length, 6)
})

test('a stream that does not open in time is mute', async () => {
  const gateway = new Gateway(never)
  const { states } = await page(gateway)
  await pass(4.9)
  assert.deepEqual(gateway.requests, [])
  await pass(0.1)
  assert.deepEqual(gateway.requests, ['status?after=0'])
  assert.deepEqual(states().slice(-1), ['connecting long_poll'])
})

test('the first reconnect is its own', async () => {
  const { task, states } = await page()
  const source = FakeEventSource.latest
  source.open()
  source.emit('chunk', '7-1', { text: 'a' })
  source.breaks()
  await pass(10)
  source.open()
  source.emit('chunk', '7-2', { text: 'b' })
  source.breaks()
  await pass(10)
  source.open()
  source.emit('end', '7-3', { state: 'succeeded' })
  await task.done
  assert.equal(FakeEventSource.made.length, 1)
  assert.deepEqual([task.view.text, task.stats.requests, task.stats.connects], ['ab', 3, 3])
  assert.deepEqual(states().slice(2, 4), ['waiting eventsource', 'open eventsource'])
})

test('after two errors without an event between, it is left and the position is resumed', async () => {
  const { connections } = await page()
  const source = FakeEventSource.latest
  source.open()
  source.emit('chunk', '7-1', { text: 'a' })
  source.breaks()
  source.open()
  source.breaks()
  await settled()
  assert.equal(source.readyState, 2)
  const { state, retryInSeconds } = connections.at(-1)
  assert.equal(state, 'waiting')
  await pass(retryInSeconds)
  assert.equal(FakeEventSource.latest.url.split('/').at(-1), 'events?after=7-1')
})

test('a reconnect that takes for ever is given up', async () => {
  const { connections } = await page()
  FakeEventSource.latest.open()
  FakeEventSource.latest.breaks()
  await pass(20)
  assert.equal(FakeEventSource.latest.readyState, 2)
  await pass(connections.at(-1).retryInSeconds)
  assert.equal(FakeEventSource.made.length, 2)
})

test('a gateway that was never reached fails at once', async () => {
  const { task } = await page()
  FakeEventSource.latest.breaks()
  FakeEventSource.latest.breaks()
  await assert.rejects(task.done, { code: 'unavailable' })
})

test('a page that slept for an hour is as patient as any', async () => {
  const { task, connections } = await page(new Gateway(never))
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('chunk', '7-1', { text: 'a' })
  await pass(3600)
  FakeEventSource.latest.breaks()
  FakeEventSource.latest.breaks()
  await settled()
  assert.equal(connections.at(-1).state, 'waiting')
  task.close()
})

test('closed for good, the status says that the task has ended', async () => {
  const gateway = new Gateway(polled('7-9', { text: 'Hello', state: 'succeeded' }))
  const { task } = await page(gateway)
  FakeEventSource.latest.breaks(2)
  assert.equal((await task.done).text, 'Hello')
})

test('closed for good with the position of the end, there is nothing more', async () => {
  const ended = polled('7-9', { state: 'succeeded' })
  const gateway = new Gateway(polled('7-9'), ended)
  const { task } = await page(gateway, { after: '7-9' })
  FakeEventSource.latest.breaks(2)
  await task.done
  assert.deepEqual(gateway.requests, ['status?after=7-9', 'status?after=7-9'])
})

test('closed for good by somebody in between, a task that is not there yet is waited for', async () => {
  const unknown = answer({ error: { code: 'not_found', message: 'There is no such task.' } }, 404)
  const { task, connections } = await page(new Gateway(unknown))
  FakeEventSource.latest.open()
  await pass(1)
  FakeEventSource.latest.breaks()
  FakeEventSource.latest.breaks(2)
  await settled()
  assert.equal(connections.at(-1).state, 'waiting')
  await pass(connections.at(-1).retryInSeconds)
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('end', '7-1', { state: 'succeeded' })
  assert.equal((await task.done).state, 'succeeded')
})

for (const [status, code] of [[401, 'refused'], [403, 'refused'], [400, 'refused'], [404, 'not_found']]) {
  test(`closed for good, a status of ${status} is final`, async () => {
    const { task } = await page(new Gateway(answer({ error: { code: 'x', message: 'because' } }, status)))
    FakeEventSource.latest.breaks(2)
    await assert.rejects(task.done, { code, status, message: /because/ })
  })
}

for (const [what, why] of [['the status passes', answer({}, 503)], ['it is well', polled('7-1')]]) {
  test(`closed for good though ${what}, the stream is tried again`, async () => {
    const { connections } = await page(new Gateway(why))
    FakeEventSource.latest.open()
    FakeEventSource.latest.breaks(2)
    await settled()
    await pass(connections.at(-1).retryInSeconds)
    assert.equal(FakeEventSource.made.length, 2)
  })
}

test('events that make no sense end the following', async () => {
  const { task } = await page()
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('chunk', '7-1', { no: 'text' })
  await assert.rejects(task.done, { code: 'bad_answer', message: /"text" of a chunk event/ })
  assert.equal(FakeEventSource.latest.readyState, 2)
})

test('dropped by hand it comes back at once by the position', async () => {
  const { task } = await page()
  const source = FakeEventSource.latest
  source.open()
  source.emit('chunk', '7-1', { text: 'a' })
  task.reconnect()
  await settled()
  assert.equal(source.readyState, 2)
  assert.equal(FakeEventSource.latest.url.split('/').at(-1), 'events?after=7-1')
})
