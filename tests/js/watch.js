// Reads one stream with the package `eventsource`, and tells on standard output, a line of JSON each, all that
// happens. It never exits by itself: node does, when nothing is left that could still happen. So its end means
// that no reconnection is pending.
//
//     node watch.js URL

import { EventSource } from 'eventsource'

const KINDS = ['state', 'chunk', 'progress', 'data', 'reset', 'end']

const tell = (fact) => process.stdout.write(JSON.stringify(fact) + '\n')

// The page's own view of a stream shows neither requests nor comments, so they are looked at on the way.
async function watchedFetch(url, init) {
  const answer = await fetch(url, init)
  tell({ type: 'request', after: init.headers['Last-Event-ID'] ?? null, status: answer.status })
  return {
    status: answer.status,
    headers: answer.headers,
    redirected: answer.redirected,
    url: answer.url,
    body: answer.body?.pipeThrough(commentCounter()) ?? null,
  }
}

function commentCounter() {
  const decoder = new TextDecoder()
  let line = ''
  return new TransformStream({
    transform(bytes, controller) {
      const lines = (line + decoder.decode(bytes, { stream: true })).split('\n')
      line = lines.pop()
      for (const one of lines) {
        if (one.startsWith(':')) tell({ type: 'comment', text: one.slice(1) })
      }
      controller.enqueue(bytes)
    },
  })
}

const source = new EventSource(process.argv[2], { fetch: watchedFetch })
for (const kind of KINDS) {
  source.addEventListener(kind, ({ data, lastEventId }) => tell({ type: 'event', kind, data, id: lastEventId }))
}
source.onmessage = ({ data }) => tell({ type: 'message', data })
source.onerror = ({ code }) => tell({ type: 'error', code: code ?? null, closed: source.readyState === source.CLOSED })
