// Follows one task with bridge.js, and tells on standard output, a line of JSON each, all that happens. It never
// exits by itself: node does, when nothing is left that could still happen. Lines on standard input are commands:
// cancel, reconnect, close.
//
//     node follow.js BASE_URL TASK_ID OPTIONS
//
// OPTIONS is JSON for `follow`; with "eventsource": true the npm package of that name is the EventSource.

import { createInterface } from 'node:readline'
import { EventSource } from 'eventsource'
import { follow } from '../../bridge/web/bridge.js'

const [baseUrl, taskId, json] = process.argv.slice(2)
const { eventsource, ...options } = JSON.parse(json)
const tell = (fact) => process.stdout.write(JSON.stringify(fact) + '\n')

const task = follow(taskId, {
  baseUrl,
  ...(eventsource ? { EventSource } : {}),
  ...options,
  onView: (view) => tell({ type: 'view', view }),
  onConnection: ({ error, ...connection }) => tell({ type: 'connection', ...connection }),
})

const commands = createInterface({ input: process.stdin })
commands.on('line', async (command) => {
  const answer = await task[command]()
  if (answer) tell({ type: 'answer', answer })
})
task.done
  .then(
    (view) => tell({ type: 'done', view, stats: task.stats }),
    ({ code, status, message }) => tell({ type: 'failed', code, status, message, stats: task.stats }),
  )
  .finally(() => commands.close())
