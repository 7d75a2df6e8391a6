// A client of examples/assistant that knows only polling. It asks one question, then asks after its answer again
// and again, until it gets anything but "not yet". It tells each answer as a line of JSON: {status, body}.
//
//     node poll.js URL COOKIE QUESTION [INTERVAL_MS]

const [url, cookie, question, interval = '2000'] = process.argv.slice(2)
const headers = { cookie }

const scheduled = await fetch(`${url}/messages`, {
  method: 'POST',
  headers: { ...headers, 'content-type': 'application/json', prefer: 'respond-async' },
  body: JSON.stringify({ content: question }),
})
if (scheduled.status !== 202) throw new Error(`the question was refused: ${scheduled.status}`)
const { task_id: taskId, conversation_id: sessionId } = await scheduled.json()

for (;;) {
  const answer = await fetch(`${url}/check_generation?${new URLSearchParams({ taskId, sessionId })}`, { headers })
  process.stdout.write(JSON.stringify({ status: answer.status, body: await answer.json() }) + '\n')
  if (answer.status !== 417) break
  await new Promise((resolve) => setTimeout(resolve, Number(interval)))
}
