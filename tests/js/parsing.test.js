// The bytes of event streams become frames as the HTML standard says, in JavaScript as in Python.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BridgeError, Decoder } from '../../bridge/web/bridge.js'
import { bytesOf, casesOf, everyCut } from './cases.js'

const decode = (pieces, resumed) => {
  const decoder = new Decoder({ lastEventId: resumed })
  const frames = pieces.flatMap((piece) => decoder.feed(piece))
  return { frames: frames.map(({ event, data, id }) => [event, data, id]), decoder }
}

for (const one of casesOf('parsing.yaml')) {
  test(one.name, () => {
    for (const pieces of everyCut(bytesOf(one))) {
      const { frames, decoder } = decode(pieces, one.resumed)
      assert.deepEqual(frames, one.frames)
      assert.equal(decoder.retryMs, one.retry ?? null)
      if (one.last_id !== undefined) assert.equal(decoder.lastEventId, one.last_id)
    }
  })
}

for (const [what, stream] of [
  ['a line', 'data: 12345678901'],
  ['a comment', ':' + 'x'.repeat(16) + '\n'],
  ['an event', 'data: 12345\ndata: 67890\n'],
]) {
  test(`what is held back is bounded: ${what} that is too long`, () => {
    for (const pieces of everyCut(new TextEncoder().encode(stream))) {
      const decoder = new Decoder({ maxBytes: 16 })
      assert.throws(
        () => pieces.forEach((piece) => decoder.feed(piece)),
        (error) => error instanceof BridgeError && error.code === 'too_large',
      )
    }
  })
}

test('an absurd retry is cut to what a number can say', () => {
  const { decoder } = decode([new TextEncoder().encode(`retry: ${'9'.repeat(400)}\n`)])
  assert.equal(decoder.retryMs, 1e15)
})

test('the bytes may be used again by whoever passed them', () => {
  const decoder = new Decoder()
  const buffer = new TextEncoder().encode('data: a')
  decoder.feed(buffer)
  buffer.fill(0)
  assert.deepEqual(decoder.feed(new TextEncoder().encode('b\n\n')), [{ event: 'message', data: 'ab', id: '' }])
})
