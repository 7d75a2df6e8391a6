// Tickets: where they go, and that a new one is asked for each time.

import assert from 'node:assert/strict'
import { afterEach, beforeEach, mock, test } from 'node:test'
import {
  FakeEventSource, Gateway, answer, chunk, end, polled, settled, stopTime, stream, watch,
} from './stage.js'

let pass
beforeEach(() => {
  pass = stopTime()
  FakeEventSource.made.length = 0
})
afterEach(() => mock.reset())

/** Tickets one after the other. */
function tickets() {
  let made = 0
  return async () => `t${(made += 1)}`
}

const authorizations = (gateway) => gateway.inits.map(({ headers }) => headers.get('Authorization'))

test('fetch carries it in a header, and the URL says nothing of it', async () => {
  const first = stream()
  const gateway = new Gateway(first, answer({ id: 'job', state: 'running', cancel_requested: true, position: '7-2' }))
  const { task } = watch({ fetch: gateway.fetch, ticket: 't' })
  await settled()
  first.send(chunk('7-1', 'a'))
  await task.cancel()
  first.send(end('7-2'))
  await task.done
  assert.deepEqual(gateway.requests, ['events', 'cancel'])
  assert.deepEqual(authorizations(gateway), ['Bearer t', 'Bearer t'])
})

test('a function is asked for a new one with each request', async () => {
  const gateway = new Gateway(polled('7-1'), polled('7-2', { state: 'succeeded' }))
  const { task } = watch({ fetch: gateway.fetch, transport: 'poll', ticket: tickets() })
  await settled()
  await pass(10)
  await task.done
  assert.deepEqual(authorizations(gateway), ['Bearer t1', 'Bearer t2'])
})

test('the page’s own Authorization stays, and the ticket goes into the URL', async () => {
  const gateway = new Gateway(polled('7-1', { state: 'succeeded' }))
  const headers = { authorization: 'Basic x' }
  const { task } = watch({ fetch: gateway.fetch, transport: 'poll', ticket: 'a+b', headers })
  await task.done
  assert.deepEqual(authorizations(gateway), ['Basic x'])
  assert.match(gateway.requests[0], /^status\?.*ticket=a%2Bb/)
})

test('EventSource has it in the URL, each time a new one', async () => {
  const gateway = new Gateway(polled('7-1', { text: 'a' }))
  const { task, connections } = watch({ fetch: gateway.fetch, EventSource: FakeEventSource, ticket: tickets() })
  await settled()
  assert.equal(new URL(FakeEventSource.latest.url).search, '?ticket=t1')
  FakeEventSource.latest.open()
  FakeEventSource.latest.emit('chunk', '7-1', { text: 'a' })
  // It reconnects with the URL that it has: a ticket that has run out is a 401, after which it never tries again.
  FakeEventSource.latest.breaks(2)
  await settled()
  await pass(connections.at(-1).retryInSeconds)
  assert.deepEqual(authorizations(gateway), ['Bearer t2'])
  assert.equal(new URL(FakeEventSource.latest.url).search, '?after=7-1&ticket=t3')
  assert.equal(FakeEventSource.made.length, 2)
  task.close()
  await task.done
})

test('a ticket that is not valid ends the following, and the error does not hold it', async () => {
  const gateway = new Gateway(answer({ error: { code: 'unauthenticated', message: 'Not valid.' } }, 401))
  const { task } = watch({ fetch: gateway.fetch, ticket: 's3cret' })
  await assert.rejects(task.done, (error) => error.code === 'refused' && error.status === 401 && !/s3cret/.test(error.stack))
})

test('where none can be had, it is as if the gateway were away', async () => {
  const gateway = new Gateway(polled('7-1'), polled('7-2', { state: 'succeeded' }))
  let session = true
  const ticket = () => {
    if (!session) throw new Error('no session')
    return 't'
  }
  const { task, connections } = watch({ fetch: gateway.fetch, transport: 'poll', ticket })
  await settled()
  session = false
  await pass(10)
  assert.match(connections.at(-1).reason, /no session/)
  session = true
  await pass(connections.at(-1).retryInSeconds)
  await task.done
})

test('one that comes late does not make the stream look held back', async () => {
  const first = stream()
  const gateway = new Gateway(first)
  let give
  const ticket = () => new Promise((resolve) => (give = resolve))
  const { task, states } = watch({ fetch: gateway.fetch, ticket })
  await settled()
  await pass(8)
  give('late')
  await settled()
  first.send(chunk('7-1', 'a') + end('7-2'))
  await task.done
  assert.deepEqual(gateway.requests, ['events'])
  assert.deepEqual(states().slice(0, 2), ['connecting fetch', 'open fetch'])
})
