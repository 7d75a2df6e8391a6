// Reads one stream of examples/assistant in its older style, with the package `eventsource` and a cookie. It tells
// each event, and each request with the position that it was made with, as a line of JSON. It closes nothing and
// never exits by itself: node does, when no reconnection is pending any more.
//
//     node chat.js URL COOKIE

import { EventSource } from 'eventsource'

const [url, cookie] = process.argv.slice(2)
const tell = (fact) => process.stdout.write(JSON.stringify(fact) + '\n')

const source = new EventSource(url, {
  async fetch(input, init) {
    const answer = await fetch(input, { ...init, headers: { ...init.headers, cookie } })
    tell({ type: 'request', after: init.headers['Last-Event-ID'] ?? null, status: answer.status })
    return answer
  },
})
for (const kind of ['conversationId', 'token', 'complete', 'error']) {
  source.addEventListener(kind, ({ data }) => data && tell({ type: kind, data: JSON.parse(data) }))
}
