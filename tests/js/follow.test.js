// What a page or a script can rely on, whatever the way: views, callbacks, iteration, cancelling, leaving.

import assert from 'node:assert/strict'
import { afterEach, beforeEach, mock, test } from 'node:test'
import { BridgeError, follow } from '../../bridge/web/bridge.js'
import {
  BASE_URL, Gateway, answer, chunk, end, event, never, polled, refused, settled, stopTime, stream, watch,
} from './stage.js'

let pass
beforeEach(() => (pass = stopTime()))
afterEach(() => mock.reset())

/** A gateway whose first answer is a stream, and somebody who follows it. */
async function streaming(options = {}, ...more) {
  const first = stream()
  const gateway = new Gateway(first, ...more)
  const one = watch({ fetch: gateway.fetch, ...options })
  await settled()
  first.send('retry: 2000\n')
  await settled()
  return { ...one, gateway, first }
}

test('a stream is folded, and the end leaves it', async () => {
  const { task, views, states, gateway, first } = await streaming()
  first.send(event('state', '7-1', { state: 'running', attempt: 1 }) + chunk('7-2', 'Hel'))
  await settled()
  first.send(chunk('7-3', 'lo') + event('chunk', '7-4', { text: 'hm', field: 'reasoning' }) + end('7-5'))
  const last = await task.done
  assert.deepEqual(views.map(({ text }) => text), ['Hel', 'Hello'])
  assert.equal(last, views.at(-1))
  assert.equal(last, task.view)
  assert.deepEqual(last, {
    id: 'job', state: 'succeeded', attempt: 1, position: '7-5', text: 'Hello', fields: { reasoning: 'hm' },
    progress: null, message: null, data: {}, cancel_requested: false, result: null, error: null, usage: null,
    truncated: false, created_at: null, started_at: null, updated_at: null, ended_at: null,
  })
  assert.deepEqual(states(), ['connecting fetch', 'open fetch', 'closed fetch'])
  assert.equal(await first.cancelled, true)
  const characters = [chunk('7-2', 'Hel'), chunk('7-3', 'lo'), end('7-5')].join('').length
  assert.ok(task.stats.characters > characters)
  assert.deepEqual({ ...task.stats, characters: 0 }, { requests: 1, connects: 1, characters: 0, way: 'fetch' })
  await pass(3600)
  assert.deepEqual(gateway.requests, ['events'])
})

test('a view is never changed once it was handed out', async () => {
  const { task, views, first } = await streaming()
  first.send(chunk('7-1', 'a') + event('data', '7-2', { name: 'x', value: 1 }))
  await settled()
  const before = structuredClone(views[0])
  first.send(chunk('7-3', 'b') + event('data', '7-4', { name: 'x', value: 2 }) + end('7-5'))
  await task.done
  assert.deepEqual(views[0], before)
  assert.notEqual(views[0], views[1])
})

test('names from the task are names: none of them reaches a prototype', async () => {
  const { task, first } = await streaming()
  const evil = { polluted: true }
  for (const [n, name] of ['__proto__', 'constructor', 'hasOwnProperty', 'toString'].entries()) {
    first.send(event('data', `7-${2 * n + 1}`, { name, value: evil }))
    first.send(event('chunk', `7-${2 * n + 2}`, { text: 'x', field: name }))
  }
  first.send('event: data\nid: 7-20\ndata: {"name":"inner","value":{"__proto__":{"polluted":true}}}\n\n')
  first.send('event: constructor\nid: 7-21\ndata: {}\n\nevent: __proto__\nid: 7-22\ndata: {}\n\n' + end('7-23'))
  const { data, fields } = await task.done
  assert.equal({}.polluted, undefined)
  for (const members of [data, fields]) {
    assert.equal(Object.getPrototypeOf(members), Object.prototype)
    for (const name of ['__proto__', 'constructor', 'hasOwnProperty', 'toString']) {
      assert.ok(Object.hasOwn(members, name), name)
    }
  }
  assert.equal(data.inner.polluted, undefined)
  assert.match(JSON.stringify(data), /"__proto__":\{"polluted":true\}.*"inner":\{"__proto__":\{"polluted":true\}\}/)
})

test('names of a poll are no less names', async () => {
  const body = polled('7-1', { state: 'succeeded' })
  const evil = async () => {
    const text = await body().text()
    return new Response(text.replace('{', '{"data":{"__proto__":{"polluted":1}},"fields":{"__proto__":"x"},'))
  }
  const { task } = watch({ transport: 'poll', fetch: new Gateway(evil).fetch })
  const { data, fields } = await task.done
  assert.ok(Object.hasOwn(data, '__proto__') && Object.hasOwn(fields, '__proto__'))
  assert.equal({}.polluted, undefined)
})

test('a dropped stream is resumed behind the last event, after the retry that was asked for', async () => {
  const second = stream()
  const { task, gateway, first, connections } = await streaming({}, second)
  first.send(chunk('7-1', 'a'))
  await settled()
  first.breaks()
  await settled()
  assert.deepEqual([connections.at(-1).state, connections.at(-1).retryInSeconds], ['waiting', 2])
  await pass(2)
  assert.equal(gateway.inits[1].headers.get('last-event-id'), '7-1')
  second.send(chunk('7-1', 'a') + chunk('7-2', 'b') + end('7-3'))
  assert.equal((await task.done).text, 'ab')
  assert.equal(task.stats.connects, 2)
})

test('a stream that falls silent is left after its time', async () => {
  const { first, gateway, connections } = await streaming({ silenceSeconds: 20 }, never)
  first.send(chunk('7-1', 'a'))
  await pass(19)
  assert.equal(connections.at(-1).state, 'open')
  await pass(1)
  assert.deepEqual([connections.at(-1).state, connections.at(-1).reason], ['waiting', 'the stream fell silent'])
  assert.equal(await first.cancelled, true)
  await pass(2)
  assert.deepEqual(gateway.requests, ['events', 'events'])
})

for (const [what, held] of [['not even a head', never], ['only a head', stream()]]) {
  test(`a stream of which ${what} comes is given up for long polls`, async () => {
    const gateway = new Gateway(held, polled('7-2', { text: 'Hello' }), polled('7-3', { state: 'succeeded' }))
    const { task, states } = watch({ fetch: gateway.fetch })
    await pass(5)
    assert.equal(task.view.text, 'Hello')
    await pass(1)
    assert.equal((await task.done).position, '7-3')
    assert.deepEqual(gateway.requests, ['events', 'status?after=0', 'status?after=7-2&wait=25'])
    assert.deepEqual(states(), [
      'connecting fetch', 'waiting fetch', 'connecting long_poll', 'open long_poll', 'closed long_poll',
    ])
  })
}

test('a fetch that can not read streams is no reason to give up', async () => {
  const bodiless = () => Object.assign(new Response(null, { headers: { 'content-type': 'text/event-stream' } }))
  const gateway = new Gateway(bodiless, polled('7-1', { state: 'succeeded' }))
  await watch({ fetch: gateway.fetch }).task.done
  assert.deepEqual(gateway.requests, ['events', 'status?after=0'])
})

test('with the transport "poll" there is never a stream', async () => {
  const polls = Array.from({ length: 10 }, (_, n) => polled(`7-${n + 1}`))
  const gateway = new Gateway(answer({}, 404), polls[0], answer({}, 504), ...polls, refused, never)
  const { task } = watch({ fetch: gateway.fetch, transport: 'poll' })
  await pass(120)
  assert.ok(gateway.requests.every((request) => request.startsWith('status')))
  assert.deepEqual(gateway.requests.map((request) => request.includes('wait')).slice(0, 5), [false, true, true, false, false])
  task.close()
})

test('polls are said to get through as soon as one did, however quiet the task is', async () => {
  const gateway = new Gateway(polled('7-9'), never, polled('7-9'), never)
  const { task, states } = watch({ fetch: gateway.fetch, after: '7-9' })
  await pass(5)
  assert.deepEqual(gateway.requests.slice(1), ['events', 'status?after=7-9', 'status?after=7-9&wait=25'])
  assert.equal(states().at(-1), 'open long_poll')
  task.close()
})

test('who comes with a position sees at once what the task is like, and only the text is cut', async () => {
  const now = { attempt: 2, progress: 0.5, data: { x: 1 }, created_at: '2026-01-01T00:00:00.000Z' }
  const first = stream()
  const gateway = new Gateway(polled('7-9', now), first)
  const { task, views } = watch({ fetch: gateway.fetch, after: '7-9' })
  await settled()
  assert.equal(views.length, 1)
  const { state, attempt, progress, data, created_at, text } = views[0]
  assert.deepEqual({ attempt, progress, data, created_at }, now)
  assert.deepEqual([state, text], ['running', ''])
  assert.equal(gateway.inits[1].headers.get('last-event-id'), '7-9')
  first.send(chunk('7-10', 'more') + end('7-11'))
  assert.deepEqual([(await task.done).text, task.view.attempt], ['more', 2])
})

test('who comes with the position of the end sees the end', async () => {
  const gateway = new Gateway(polled('7-9', { state: 'failed', error: { code: 'x', message: 'y' } }))
  const { task, views } = watch({ fetch: gateway.fetch, after: '7-9' })
  assert.deepEqual([(await task.done).state, views.length, gateway.requests], ['failed', 1, ['status?after=7-9']])
})

test('a gateway that says that it can not serve now is waited for, also by who polls', async () => {
  const away = answer({ error: { code: 'redis_away', message: 'x' } }, 503, { 'retry-after': '2' })
  const busy = Array.from({ length: 60 }, () => away)
  const { task, states } = watch({ fetch: new Gateway(polled('7-1'), ...busy).fetch, transport: 'poll' })
  await pass(300)
  assert.equal(states().at(-1), 'waiting poll'.replace('poll', task.stats.way))
  task.close()
})

test('a proxy that says so of it is not it', async () => {
  const away = answer({ error: { code: 'no_backend', message: 'x' } }, 503)
  const busy = Array.from({ length: 60 }, () => away)
  const { task } = watch({ fetch: new Gateway(polled('7-1'), ...busy).fetch, transport: 'poll' })
  await pass(300)
  await assert.rejects(task.done, { code: 'unavailable', status: 503 })
})

test('no time is too long for a timer', async () => {
  const { task, first } = await streaming({ silenceSeconds: Infinity, openSeconds: 1e9, patienceSeconds: Infinity })
  const timers = mock.method(globalThis, 'setTimeout')
  first.send(chunk('7-1', 'a'))
  await settled()
  assert.ok(timers.mock.callCount() > 0)
  for (const { arguments: [, milliseconds] } of timers.mock.calls) assert.ok(milliseconds < 2 ** 31, `${milliseconds}`)
  first.send(end('7-2'))
  await task.done
})

test('a loop gets views as they come, and ends with the last', async () => {
  const { task, first } = await streaming()
  const seen = []
  const loop = (async () => {
    for await (const view of task) seen.push(view.text)
  })()
  for (const [n, text] of ['a', 'b', 'c'].entries()) {
    first.send(chunk(`7-${n + 1}`, text))
    await settled()
  }
  first.send(end('7-4'))
  await loop
  assert.deepEqual(seen, ['a', 'ab', 'abc', 'abc'])
})

test('a slow loop skips views, but never the last, and one that begins late gets that', async () => {
  const { task, first } = await streaming()
  const seen = []
  const loop = (async () => {
    for await (const view of task) {
      seen.push(view.text)
      if (seen.length === 1) await task.done
    }
  })()
  for (const n of [1, 2, 3, 4]) {
    first.send(chunk(`7-${n}`, `${n}`))
    await settled()
  }
  first.send(end('7-5'))
  await loop
  assert.deepEqual(seen, ['1', '1234'])
  const late = []
  for await (const view of task) late.push(view)
  assert.deepEqual(late, [task.view])
})

test('leaving a loop is not leaving the task', async () => {
  const { task, first } = await streaming()
  first.send(chunk('7-1', 'a'))
  for await (const view of task) {
    assert.equal(view.text, 'a')
    break
  }
  first.send(chunk('7-2', 'b') + end('7-3'))
  assert.equal((await task.done).text, 'ab')
})

test('what ends the following ends its loops, after the last view', async () => {
  const { task, first } = await streaming({}, answer({ error: { code: 'gone', message: 'no more' } }, 403))
  first.send(chunk('7-1', 'a'))
  await settled()
  const seen = []
  const loop = (async () => {
    for await (const view of task) seen.push(view.text)
  })()
  const ended = assert.rejects(loop, { name: 'BridgeError', code: 'refused', status: 403, message: /no more/ })
  first.close()
  await pass(2)
  await ended
  assert.deepEqual(seen, ['a'])
})

test('nobody has to look at what went wrong', async () => {
  const unhandled = mock.fn()
  process.on('unhandledRejection', unhandled)
  const { connections } = watch({ fetch: new Gateway(refused).fetch })
  await settled()
  process.off('unhandledRejection', unhandled)
  assert.equal(unhandled.mock.callCount(), 0)
  assert.deepEqual([connections.at(-1).state, connections.at(-1).error.code], ['closed', 'unavailable'])
})

test('callbacks that throw are reported, and disturb nothing', async () => {
  const reported = mock.method(console, 'error', () => {})
  const first = stream()
  const task = follow('job', {
    baseUrl: BASE_URL,
    fetch: new Gateway(first).fetch,
    onView: () => {
      throw new Error('the page is broken')
    },
    onConnection: async () => {
      throw new Error('and here too')
    },
  })
  await settled()
  first.send(chunk('7-1', 'a') + end('7-2'))
  assert.equal((await task.done).text, 'a')
  await settled()
  assert.deepEqual(
    new Set(reported.mock.calls.map(({ arguments: [error] }) => error.message)),
    new Set(['the page is broken', 'and here too']),
  )
})

test('close() gives the view so far, and leaves no request and no timer', async () => {
  const { task, states, gateway, first } = await streaming()
  first.send(chunk('7-1', 'a'))
  await settled()
  task.close()
  task.close()
  assert.equal((await task.done).text, 'a')
  assert.equal(await first.cancelled, true)
  assert.equal(gateway.inits[0].signal.aborted, true)
  await pass(3600)
  assert.deepEqual(gateway.requests, ['events'])
  assert.equal(states().at(-1), 'closed fetch')
})

test('close() in a pause, in a poll and in a callback', async () => {
  const pausing = watch({ transport: 'poll', fetch: new Gateway(answer({}, 404)).fetch })
  await settled()
  pausing.task.close()
  await pausing.task.done
  const polling = watch({ transport: 'poll', fetch: new Gateway(never).fetch })
  await settled()
  polling.task.close()
  await polling.task.done
  const first = stream()
  const task = follow('job', { baseUrl: BASE_URL, fetch: new Gateway(first).fetch, onView: () => task.close() })
  await settled()
  first.send(chunk('7-1', 'a'))
  assert.equal((await task.done).text, 'a')
})

test('a signal does what close() does, also one that was given already', async () => {
  const stop = new AbortController()
  const { task } = await streaming({ signal: stop.signal })
  stop.abort()
  assert.equal((await task.done).state, 'queued')
  const gateway = new Gateway()
  const late = watch({ fetch: gateway.fetch, signal: stop.signal })
  await late.task.done
  assert.deepEqual(gateway.requests, [])
})

test('reconnect() comes back at once by the position, and cuts a pause short', async () => {
  const second = stream()
  const third = stream()
  const { task, gateway, first } = await streaming({}, second, third)
  first.send(chunk('7-1', 'a'))
  await settled()
  task.reconnect()
  await settled()
  assert.equal(gateway.inits[1].headers.get('last-event-id'), '7-1')
  second.breaks()
  await settled()
  assert.equal(gateway.requests.length, 2)
  task.reconnect()
  await settled()
  assert.equal(gateway.requests.length, 3)
  third.send(end('7-2'))
  await task.done
})

test('when the network is back, or the page is looked at again, there is no waiting', async () => {
  const [windowEvents, documentEvents] = [new EventTarget(), new EventTarget()]
  const page = { addEventListener: 0, removeEventListener: 0 }
  for (const name of Object.keys(page)) globalThis[name] = windowEvents[name].bind(windowEvents)
  globalThis.document = documentEvents
  try {
    const { first, gateway, task } = await streaming({}, refused, refused, never)
    first.send(chunk('7-1', 'a'))
    first.close()
    await settled()
    windowEvents.dispatchEvent(new Event('online'))
    await settled()
    assert.equal(gateway.requests.length, 2)
    documentEvents.visibilityState = 'hidden'
    documentEvents.dispatchEvent(new Event('visibilitychange'))
    await settled()
    assert.equal(gateway.requests.length, 2)
    documentEvents.visibilityState = 'visible'
    documentEvents.dispatchEvent(new Event('visibilitychange'))
    await settled()
    assert.equal(gateway.requests.length, 3)
    task.close()
  } finally {
    for (const name of [...Object.keys(page), 'document']) delete globalThis[name]
  }
})

test('cancel() asks for it, and the following sees the end', async () => {
  const said = { id: 'job', state: 'running', cancel_requested: true, position: '7-2' }
  const { task, gateway, first } = await streaming({}, answer(said, 202))
  assert.deepEqual(await task.cancel(), said)
  assert.deepEqual([gateway.requests.at(-1), gateway.inits.at(-1).method], ['cancel', 'POST'])
  first.send(end('7-3', 'cancelled'))
  assert.equal((await task.done).state, 'cancelled')
})

test('a cancel that is refused, or not answered, says so', async () => {
  const { task } = await streaming({}, answer({ error: { code: 'x', message: 'not yours' } }, 404), refused, never)
  await assert.rejects(task.cancel(), { code: 'not_found', status: 404, message: /not yours/ })
  await assert.rejects(task.cancel(), { code: 'unavailable', status: null })
  const unanswered = assert.rejects(task.cancel(), { code: 'unavailable', message: /in time/ })
  await pass(10)
  await unanswered
  task.close()
})

test('headers go with every request; a function is asked each time', async () => {
  let count = 0
  const headers = async () => ({ Authorization: `Bearer ${++count}` })
  const { task, gateway, first } = await streaming({ headers, credentials: 'include' }, answer({}), never)
  await task.cancel()
  first.close()
  await pass(2)
  assert.deepEqual(gateway.inits.map((init) => init.headers.get('authorization')), ['Bearer 1', 'Bearer 2', 'Bearer 3'])
  assert.ok(gateway.inits.every(({ credentials }) => credentials === 'include'))
  assert.equal(gateway.inits[0].headers.get('accept'), 'text/event-stream')
  task.close()
})

test('headers that can not be had now are as good as a gateway that is away', async () => {
  const headers = mock.fn(async () => ({}))
  const second = stream()
  const { task, first, connections } = await streaming({ headers }, second)
  first.send(chunk('7-1', 'a'))
  await settled()
  headers.mock.mockImplementationOnce(async () => {
    throw new Error('no token now')
  })
  first.close()
  await pass(2)
  assert.match(connections.at(-1).reason, /no token now/)
  await pass(4)
  second.send(end('7-2'))
  await task.done
})

test('headers that take their time are no sign of a stream that is held back, but they have to come', async () => {
  let give
  const headers = mock.fn(() => new Promise((resolve) => (give = resolve)))
  const gateway = new Gateway(never)
  const { task } = watch({ fetch: gateway.fetch, headers, openSeconds: 5 })
  await pass(9)
  give({})
  await pass(4)
  assert.deepEqual(gateway.requests, ['events'])
  task.close()
  const late = watch({ fetch: gateway.fetch, headers }).task
  await pass(10)
  await assert.rejects(late.done, { code: 'unavailable', message: /headers/ })
})

test('what can never work is refused at once', () => {
  for (const id of ['', '.', '..', 'a/b', 'a b', 'x'.repeat(201), 7, undefined]) {
    assert.throws(() => follow(id, { baseUrl: BASE_URL }), { code: 'invalid_input' }, `${id}`)
  }
  for (const wrong of [
    { after: 'seven' }, { transport: 'pigeon' }, { baseUrl: 'nowhere' }, { baseUrl: 'file:///x' },
    { transport: 'eventsource' }, { transport: 'eventsource', EventSource: class {}, headers: { a: 'b' } },
  ]) {
    assert.throws(() => follow('job', { baseUrl: BASE_URL, ...wrong }), { code: 'invalid_input' }, JSON.stringify(wrong))
  }
  // This module was read from a file, beside which there is no gateway.
  assert.throws(() => follow('job'), BridgeError)
})

test('an address may be written with or without its last slash, and as a URL', async () => {
  for (const baseUrl of ['http://gateway.test/base', 'http://gateway.test/base/?x=1#y', new URL(BASE_URL)]) {
    const gateway = new Gateway(never)
    const { task } = watch({ baseUrl, fetch: gateway.fetch })
    await settled()
    assert.deepEqual(gateway.requests, ['events'])
    task.close()
  }
})

/** Runs with these globals, as in a browser. */
async function inBrowser(globals, act) {
  const all = { document: { addEventListener() {}, removeEventListener() {} }, ...globals }
  const before = Object.getOwnPropertyDescriptors(globalThis)
  for (const [name, value] of Object.entries(all)) Object.defineProperty(globalThis, name, { value, configurable: true })
  try {
    await act()
  } finally {
    for (const name of Object.keys(all)) {
      if (before[name]) Object.defineProperty(globalThis, name, before[name])
      else delete globalThis[name]
    }
  }
}

test('close() while a seat is sought begins no stream, and leaves the seat', async () => {
  const held = new Set()
  const locks = {
    async request(name, options, take) {
      await settled()
      held.add(name)
      await take({ name })
      held.delete(name)
    },
  }
  const gateway = new Gateway(stream())
  await inBrowser({ navigator: { locks } }, async () => {
    const { task } = watch({ fetch: gateway.fetch })
    await Promise.resolve()
    task.close()
    await task.done
    await settled()
  })
  assert.deepEqual([gateway.requests, [...held]], [[], []])
})

for (const [what, locks] of [['has no', undefined], ['may not have any', { request: () => Promise.reject(new Error()) }]]) {
  test(`a page that ${what} locks counts its own seats: the fifth stream is one of short polls`, async () => {
    const follow = async (...answers) => {
      const gateway = new Gateway(...answers)
      const { task } = watch({ fetch: gateway.fetch })
      await settled()
      return { task, asked: gateway.requests }
    }
    await inBrowser({ navigator: { locks } }, async () => {
      const six = []
      for (let n = 0; n < 4; n++) six.push(await follow(never))
      six.push(await follow(polled('7-1'), never))
      assert.deepEqual(six.map(({ asked }) => asked[0]), [...Array(4).fill('events'), 'status?after=0'])
      six[1].task.close()
      await settled()
      six.push(await follow(never), await follow(polled('7-1'), never))
      assert.deepEqual(six.slice(5).map(({ asked }) => asked[0]), ['events', 'status?after=0'])
      for (const { task } of six) task.close()
      await settled()
      six.push(await follow(never))
      assert.deepEqual(six.at(-1).asked, ['events'])
      six.at(-1).task.close()
      await settled()
    })
  })
}
