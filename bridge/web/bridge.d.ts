/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json }

export type TaskState = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'

/** What a task looks like at `position`: the same JSON as the gateway's `/status`. Never changed once handed out. */
export interface View {
  readonly id: string
  readonly state: TaskState
  /** The n-th run of the task, or 0 before the first. */
  readonly attempt: number
  readonly position: string
  readonly text: string
  /** The texts of the other fields, such as `reasoning`. */
  readonly fields: { readonly [field: string]: string }
  /** From 0 to 1. */
  readonly progress: number | null
  readonly message: string | null
  readonly data: { readonly [name: string]: Json }
  readonly cancel_requested: boolean
  readonly result: Json
  readonly error: { readonly code: string; readonly message: string } | null
  readonly usage: { readonly [name: string]: Json } | null
  /** Whether the task wrote more than is kept. */
  readonly truncated: boolean
  /** RFC 3339 in UTC, as are all times. */
  readonly created_at: string | null
  readonly started_at: string | null
  readonly updated_at: string | null
  readonly ended_at: string | null
}

export type Way = 'eventsource' | 'fetch' | 'long_poll' | 'poll'

export interface Connection {
  readonly state: 'connecting' | 'open' | 'waiting' | 'closed'
  /** Null when it was closed before it began. */
  readonly way: Way | null
  /** Why it waits or is closed. */
  readonly reason: string | null
  /** When the next try comes; null where the browser decides that. */
  readonly retryInSeconds: number | null
  /** What `done` rejects with. */
  readonly error: unknown
}

export interface Stats {
  readonly requests: number
  /** How many streams were opened. */
  readonly connects: number
  /** Of all that was received: events without heartbeats, and answers to polls. */
  readonly characters: number
  /** The way of the latest request. */
  readonly way: Way | null
}

/** What `follow` needs of an EventSource. */
export interface EventSourceLike {
  readonly readyState: number
  addEventListener(type: string, listener: (event: any) => void): void
  close(): void
}

export interface FollowOptions {
  /** Called with each new view, at most once for what arrives together. */
  onView?: (view: View) => unknown
  /** Called when the connection's state changes. */
  onConnection?: (connection: Connection) => unknown
  /** Where the gateway is. Default: where this module came from. */
  baseUrl?: string | URL
  /** Sent with every request; a function is asked each time. With headers, EventSource isn't used. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>)
  /** Lets in to one task, where the gateway asks for that: `bridge.ticket(id)` makes one. Goes into the header
   * Authorization, and into the URL of an EventSource. A function is asked each time, as tickets run out. */
  ticket?: string | (() => string | Promise<string>)
  /** As of fetch. `include` sends cookies to another origin as well. */
  credentials?: RequestCredentials
  /** A position: the view's texts hold only what came after it. Everything else is whole: one poll asks first. */
  after?: string
  /** Stops the following, like `close()`. */
  signal?: AbortSignal
  /** How streams are read; `poll` reads none. Default `auto`: EventSource where it fits, else fetch. */
  transport?: 'auto' | 'eventsource' | 'fetch' | 'poll'
  fetch?: typeof fetch
  EventSource?: new (url: string, options: { withCredentials: boolean }) => EventSourceLike
  /** How long a stream may take to bring its first byte. Default 5; the gateway begins at once. */
  openSeconds?: number
  /** How long a fetch stream may be silent. Default 45; the gateway's heartbeats come every 15 s. */
  silenceSeconds?: number
  /** How long a gateway that was reached, or that this module came from, may be away. Default 60. */
  patienceSeconds?: number
}

/** One task, followed to its end. */
export interface Following extends AsyncIterable<View> {
  /** The view so far. */
  readonly view: View
  /** The last view, at the task's end or after `close()`. Rejects with a BridgeError when it can't go on. */
  readonly done: Promise<View>
  readonly stats: Stats
  /** Each new view; a slow loop skips some, but never the last. Leaving the loop doesn't end the following. */
  [Symbol.asyncIterator](): AsyncGenerator<View, void, undefined>
  /** Asks the task to stop; the following goes on, to see it end. Rejects with a BridgeError. */
  cancel(): Promise<{ id: string; state: TaskState; cancel_requested: boolean; position: string }>
  /** Drops the connection, and comes back at once by the position. */
  reconnect(): void
  /** Stops following; the task goes on. */
  close(): void
}

/** Follows a task until its end, over as many connections as it takes.
 *
 * Throws a BridgeError (`invalid_input`) for an id or an option that can't work.
 */
export function follow(taskId: string, options?: FollowOptions): Following

export type ErrorCode = 'unavailable' | 'not_found' | 'refused' | 'bad_answer' | 'too_large' | 'invalid_input'

/** How a request or a stream failed: nothing came at all, nothing came any more, or anything else. */
export type Trouble = 'mute' | 'silent' | 'broken'

/** What went wrong with a gateway:
 *
 * - `unavailable`: it can't be reached or can't serve now; a later try may succeed;
 * - `not_found`: it doesn't know the task, or there is no gateway at this address;
 * - `refused`: it says that the request is wrong, or not allowed;
 * - `bad_answer`: what answered speaks otherwise than a gateway does;
 * - `too_large`: a line or an event of the stream is over the limit;
 * - `invalid_input`: the caller passed what can never work.
 */
export class BridgeError extends Error {
  constructor(code: ErrorCode, message: string, more?: { status?: number | null; kind?: Trouble; cause?: unknown })
  readonly code: ErrorCode
  /** The HTTP status behind it, or null. */
  readonly status: number | null
  readonly kind: Trouble
}

/** The kinds of event that a gateway sends, each by its name: EventSource needs a listener for each. */
export const KINDS: readonly string[]

export interface Frame {
  event: string
  data: string
  id: string
}

/** Turns the bytes of one event stream, cut anywhere, into frames, as the HTML standard says. */
export class Decoder {
  constructor(options?: { lastEventId?: string; maxBytes?: number })
  /** Throws a BridgeError (`too_large`) for a line or event over `maxBytes`. */
  feed(bytes: Uint8Array): Frame[]
  /** The id to resume with: that of the last blank line. */
  readonly lastEventId: string
  /** The reconnection time that the server asked for, or null. */
  readonly retryMs: number | null
}

export interface SessionRequest {
  way: 'stream' | 'long_poll' | 'poll'
  query: { after?: string; wait?: string }
  headers: { [name: string]: string }
  /** How long to wait for the first byte; without it the request is `mute`. */
  answerSeconds: number
  /** How long to wait for each further byte; without it the stream is `silent`. */
  silenceSeconds: number
}

export interface News {
  position: string
  kind: string
  event: { [member: string]: unknown }
}

/** What to do next when following a task, for whoever does the requests otherwise. No I/O, and no timers. */
export class Session {
  constructor(
    taskId: string,
    options?: {
      after?: string | null
      /** Whether to begin with one poll that shows all but the text up to `after`. */
      lookFirst?: boolean
      /** Whether streams are tried at all. */
      streams?: boolean
      /** Whether the gateway is known to be there, so that its absence will pass. */
      reached?: boolean
      openSeconds?: number
      silenceSeconds?: number
      patienceSeconds?: number
      /** In seconds, from anywhere. */
      clock?: () => number
      jitter?: () => number
    },
  )
  readonly view: { toJSON(): View }
  readonly done: boolean
  readonly characters: number
  readonly way: 'stream' | 'long_poll' | 'poll'
  next(): SessionRequest
  /** The position as a query; `start` is that of a view without any. */
  since(start?: string): { after?: string }
  answered(status: number, headers: Headers, body?: string): void
  opened(): void
  receive(bytes: Uint8Array): News[]
  heard(frames: Iterable<Frame>): News[]
  /** Whether it was new. */
  polled(status: number, headers: Headers, body: string): boolean
  pause(): number
  /** What a poll beside a stream has seen, and the stream has not brought: a function that folds it, or null. */
  ahead(status: number, body: string): (() => boolean) | null
  /** Seconds to wait before `next`. Throws the error when it won't pass, or when it is time to give up. */
  failed(error: unknown): number
}
