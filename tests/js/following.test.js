// The session asks, folds, waits and ends as the shared cases say. Nobody sleeps: the clock is a number.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BridgeError, Session } from '../../bridge/web/bridge.js'
import { casesOf } from './cases.js'

const BASE = {
  id: 'job', state: 'running', attempt: 1, position: '7-1', text: '', fields: {}, progress: null, message: null,
  data: {}, cancel_requested: false, result: null, error: null, usage: null, truncated: false,
  created_at: null, started_at: null, updated_at: null, ended_at: null, reset: false,
}
const CODES = { unavailable: 'unavailable', not_found: 'not_found', refused: 'refused', nonsense: 'bad_answer' }

const away = (kind) => new BridgeError('unavailable', kind, { kind })
const isAbout = (a, b) => assert.ok(Math.abs(a - b) < 1e-6, `${a} is not ${b}`)

function wire({ at, id, raw, retry, ...event }) {
  if (raw !== undefined) return raw
  if (retry !== undefined) return `retry: ${retry}\n`
  const [[kind, data]] = Object.entries(event)
  return `event: ${kind}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`
}

class Runner {
  now = 0

  constructor({ after, look_first: lookFirst, patience = 60, jitter = 1 }, bytewise) {
    this.bytewise = bytewise
    this.session = new Session('job', {
      after, lookFirst, patienceSeconds: patience, clock: () => 1000 + this.now, jitter: () => jitter,
    })
  }

  exchange(one) {
    const began = this.now
    const request = this.session.next()
    this.checkRequest(request, one)
    let [kinds, pause] = [null, null]
    const status = one.status ?? (one.answer || one.raw_answer || one.body ? 200 : null)
    try {
      if (status !== null && one.way === 'stream') kinds = this.stream(one, status)
      else if (status !== null) pause = this.poll(one, status)
    } catch (error) {
      if (!(error instanceof BridgeError)) throw error
      pause = this.session.failed(error)
    }
    if (one.ends) pause = this.end(one, began, request.answerSeconds)
    // A poll is folded in whole, not as events.
    if (one.batch && kinds) assert.deepEqual(kinds, one.batch)
    if (one.view) this.compare(one.view)
    if (one.pause !== undefined) isAbout(pause, one.pause)
    this.now += pause ?? 0
  }

  checkRequest(request, { way, after = '0', wait = way === 'long_poll' ? 25 : 0, last_event_id }) {
    assert.equal(request.way, way)
    assert.equal(this.session.way, way)
    const query = wait ? { after, wait: `${wait}` } : { after }
    assert.deepEqual(request.query, way === 'stream' ? {} : query)
    assert.equal(request.headers['Last-Event-ID'], last_event_id)
    assert.equal(request.answerSeconds, way === 'stream' ? 5 : wait + 10)
  }

  stream(one, status) {
    const type = status === 200 ? 'text/event-stream' : 'application/json'
    this.session.answered(status, new Headers({ 'content-type': type, ...one.headers }), one.error_body ?? '')
    const kinds = []
    const began = this.now
    for (const piece of one.body ?? []) {
      this.now = Math.max(this.now, began + (piece.at ?? 0))
      const bytes = new TextEncoder().encode(wire(piece))
      for (const part of this.bytewise ? [...bytes].map((byte) => Uint8Array.of(byte)) : [bytes]) {
        kinds.push(...this.session.receive(part).map(({ kind }) => kind))
      }
    }
    return kinds
  }

  poll(one, status) {
    this.now += one.takes ?? 0
    const body = one.answer ? JSON.stringify({ ...BASE, ...one.answer }) : (one.raw_answer ?? one.error_body ?? '')
    const headers = new Headers({ 'content-type': 'application/json', ...one.headers })
    this.session.polled(status, headers, body)
    return this.session.pause()
  }

  end({ ends, ends_at = 0 }, began, answerSeconds) {
    assert.equal(this.session.done, false)
    if (ends === 'mute') this.now = began + answerSeconds
    else if (ends === 'silent') this.now += 45
    else this.now = Math.max(this.now, began + ends_at)
    return this.session.failed(away(ends === 'close' || ends === 'refused' ? 'broken' : ends))
  }

  compare(members) {
    const view = this.session.view.toJSON()
    for (const [name, value] of Object.entries(members)) assert.deepEqual(view[name], value, name)
    if (members.data) assert.deepEqual(Object.keys(view.data), Object.keys(members.data))
  }
}

function run(one, bytewise) {
  const runner = new Runner(one, bytewise)
  const exchanges = one.exchanges.flatMap((each) =>
    Array.from({ length: each.times ?? 1 }, (_, again) => (again ? { ...each, at: undefined } : each)),
  )
  exchanges.forEach((each, index) => {
    if (each.at !== undefined) isAbout(runner.now, each.at)
    if (one.error && index === exchanges.length - 1) {
      assert.throws(() => runner.exchange(each), { name: 'BridgeError', code: CODES[one.error] })
      return
    }
    assert.equal(runner.session.done, false)
    runner.exchange(each)
  })
  if (one.error) return
  assert.equal(runner.session.done, one.done ?? true)
  runner.compare(one.view ?? {})
}

for (const one of casesOf('following.yaml')) {
  for (const bytewise of [false, true]) test(`${one.name}${bytewise ? ', bytewise' : ''}`, () => run(one, bytewise))
}

test('a gateway that is known to be there is waited for from the first request on', () => {
  let now = 0
  const session = new Session('job', { reached: true, patienceSeconds: 60, clock: () => now, jitter: () => 1 })
  session.next()
  isAbout(session.failed(away('broken')), 1)
  now = 61
  session.next()
  assert.throws(() => session.failed(away('broken')), { name: 'BridgeError', code: 'unavailable' })
})
