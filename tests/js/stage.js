// What the tests of `follow` play with: a clock, timers, a gateway to fetch from, and an EventSource, all of them
// moved by the test.

import assert from 'node:assert/strict'
import { mock } from 'node:test'
import { follow } from '../../bridge/web/bridge.js'

export const BASE_URL = 'http://gateway.test/base/'

/** Time stands still until `pass` is called. */
export function stopTime() {
  let now = 0
  mock.timers.enable({ apis: ['setTimeout'] })
  mock.method(performance, 'now', () => now)
  return async (seconds) => {
    await settled()
    // In small steps: what a timer begins may set the next one.
    for (const end = now + seconds * 1000; now < end; ) {
      const step = Math.min(1000, end - now)
      now += step
      mock.timers.tick(step)
      await settled()
    }
  }
}

/** Everything has happened that needs no time. */
export async function settled() {
  for (let n = 0; n < 5; n++) await new Promise((resolve) => setImmediate(resolve))
}

export const event = (kind, id, data) => `event: ${kind}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`
export const chunk = (id, text) => event('chunk', id, { text })
export const end = (id, state = 'succeeded') => event('end', id, { state })

/** The view of a poll. */
export const polled = (position, members = {}) => answer({ state: 'running', attempt: 1, position, text: '', ...members })
export const answer = (json, status = 200, headers = {}) => () =>
  new Response(JSON.stringify(json), { status, headers: { 'content-type': 'application/json', ...headers } })
export const refused = () => Promise.reject(new TypeError('fetch failed'))
export const never = ({ signal }) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))

/** A stream whose bytes the test sends. */
export function stream() {
  const { readable, writable } = new TransformStream()
  const writer = writable.getWriter()
  const one = () => new Response(readable, { headers: { 'content-type': 'text/event-stream' } })
  one.cancelled = writer.closed.then(() => false, () => true)
  one.send = (text) => writer.write(new TextEncoder().encode(text)).catch(() => {})
  one.close = () => writer.close()
  one.breaks = () => writer.abort(new Error('reset'))
  return one
}

/** Answers the n-th request with the n-th answer. `requests` are "PATH?QUERY" with what else matters. */
export class Gateway {
  requests = []
  inits = []

  constructor(...answers) {
    this.answers = answers
    this.fetch = async (href, init) => {
      const url = new URL(href)
      assert.ok(href.startsWith(`${BASE_URL}tasks/job/`), href)
      this.requests.push(url.pathname.split('/').at(-1) + url.search)
      this.inits.push(init)
      assert.ok(this.answers.length, `nobody expects ${this.requests.at(-1)}`)
      return this.answers.shift()(init)
    }
  }
}

/** An EventSource that does what the test says. The latest is `FakeEventSource.latest`. */
export class FakeEventSource extends EventTarget {
  static made = []
  readyState = 0

  static get latest() {
    return this.made.at(-1)
  }

  constructor(url, options) {
    super()
    Object.assign(this, { url, options })
    FakeEventSource.made.push(this)
  }

  open() {
    this.readyState = 1
    this.dispatchEvent(new Event('open'))
  }

  emit(kind, lastEventId, data) {
    this.dispatchEvent(new MessageEvent(kind, { data: JSON.stringify(data), lastEventId }))
  }

  breaks(readyState = 0) {
    this.readyState = readyState
    this.dispatchEvent(new Event('error'))
  }

  close() {
    this.readyState = 2
  }
}

/** Follows the task "job" and keeps what it tells. */
export function watch(options) {
  const views = []
  const connections = []
  const task = follow('job', {
    baseUrl: BASE_URL,
    ...options,
    onView: (view) => views.push(view),
    onConnection: (connection) => connections.push(connection),
  })
  return { task, views, connections, states: () => connections.map(({ state, way }) => `${state} ${way}`) }
}
