// Folds what comes on standard input with a Session, a case per line, and answers each with a line: the view and
// whether it is the last, or the code of the error.
//
//     {"steps": [["stream", BASE64], ["poll", BODY], …]}

import { createInterface } from 'node:readline'
import { BridgeError, Session } from '../../bridge/web/bridge.js'

const HEADERS = new Headers({ 'content-type': 'text/event-stream' })

function fold({ steps }) {
  const session = new Session('job')
  session.next()
  session.answered(200, HEADERS)
  for (const [way, content] of steps) {
    if (way === 'stream') session.receive(Buffer.from(content, 'base64'))
    else session.polled(200, HEADERS, content)
  }
  return { view: session.view, done: session.done }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = fold(JSON.parse(line))
  } catch (error) {
    if (!(error instanceof BridgeError)) throw error
    answer = { error: error.code }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
