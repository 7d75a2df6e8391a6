// How the module is used from TypeScript: it must compile with --strict, and every line marked as an error must be
// one. Nobody runs this.

import { BridgeError, Decoder, KINDS, Session, follow } from '../../bridge/web/bridge.js'
import type { Connection, FollowOptions, Following, Json, View } from '../../bridge/web/bridge.js'
import { useEffect, useState } from 'react'

export function useTask(id: string): View | null {
  const [view, setView] = useState<View | null>(null)
  useEffect(() => {
    const task = follow(id, { onView: setView })
    return () => task.close()
  }, [id])
  return view
}

export async function everything(): Promise<string> {
  const options: FollowOptions = {
    baseUrl: new URL('https://example.org/base/'),
    ticket: async () => (await fetch('/ticket')).text(),
    onView: async (view) => void view.text.length,
    onConnection: ({ state, way, reason, retryInSeconds }: Connection) => {
      const told: string = state === 'waiting' ? `${reason ?? ''} ${retryInSeconds ?? 0}` : (way ?? '')
      console.log(told)
    },
    headers: async () => ({ Authorization: 'Bearer …' }),
    credentials: 'include',
    after: '1763650000000-17',
    signal: AbortSignal.timeout(1000),
    transport: 'fetch',
    fetch,
    EventSource,
    silenceSeconds: 45,
    patienceSeconds: 60,
  }
  const task: Following = follow('job-42', options)
  for await (const view of task) {
    const sources: Json | undefined = view.data['sources']
    const reasoning: string | undefined = view.fields['reasoning']
    console.log(view.progress ?? 0, view.error?.code, sources, reasoning)
    // @ts-expect-error Views are not changed.
    view.text = ''
  }
  task.reconnect()
  const { cancel_requested: asked } = await task.cancel()
  const { requests, characters, connects, way } = task.stats
  try {
    const last = await task.done
    return `${last.text} ${asked} ${requests + characters + connects} ${way}`
  } catch (error) {
    if (error instanceof BridgeError && error.code === 'refused') return `${error.status}`
    throw error
  }
}

export function parts(bytes: Uint8Array): string[] {
  const session = new Session('job-42', { after: null, jitter: () => 1 })
  const { way, query, headers, answerSeconds } = session.next()
  session.answered(200, new Headers({ 'content-type': 'text/event-stream' }))
  const kinds = session.receive(bytes).map(({ kind }) => kind)
  const frames = new Decoder({ maxBytes: 1000 }).feed(bytes).map(({ event }) => event)
  return [...kinds, ...frames, ...KINDS, way, query.after ?? '', headers['Accept'] ?? '', `${answerSeconds}`]
}

// @ts-expect-error There is no such transport.
follow('job-42', { transport: 'pigeon' })
// @ts-expect-error A task is named by text.
follow(42)
// @ts-expect-error There is no such state.
follow('job-42').view.state === 'done'
