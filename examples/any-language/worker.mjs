// A worker in Node, without packages: what comes on standard input is the task's answer, while it comes.
//
//     node worker.mjs TASK
//
// One request carries all of it, one event per line. Where it breaks off (no gateway, no Redis) it is sent again from
// its beginning, to whichever gateway answers; because it has a number, what had arrived isn't said twice.

import { EventEmitter, once } from "node:events";

const [taskId] = process.argv.slice(2);
const { BRIDGE_URL = "http://127.0.0.1:8620", BRIDGE_REPORT_KEY, AGAIN_SECONDS = 1 } = process.env;
const attempt = crypto.randomUUID();
const said = []; // the lines so far, kept until they have arrived
let over = false;
const news = new EventEmitter();

function say(event) {
  if (event) said.push(JSON.stringify(event) + "\n");
  news.emit("said");
}

async function* lines() {
  for (let n = 0; n < said.length || !over; ) {
    if (n < said.length) yield new TextEncoder().encode(said[n++]);
    else await once(news, "said");
  }
}

async function post(path, type, body) {
  for (;;) {
    try {
      const headers = { Authorization: `Bearer ${BRIDGE_REPORT_KEY}`, "Content-Type": type };
      const request = { method: "POST", headers, body: body(), duplex: "half" };
      const response = await fetch(`${BRIDGE_URL}/tasks/${taskId}/${path}`, request);
      const answer = await response.json();
      if (![408, 429, 503].includes(response.status)) return answer;
    } catch {} // the connection broke
    await new Promise((resolve) => setTimeout(resolve, AGAIN_SECONDS * 1000));
  }
}

const report = post(`events?attempt=${attempt}&batch=1&lease=30&until=cancel`, "application/x-ndjson", () =>
  ReadableStream.from(lines()));
report.then((answer) => answer.error && process.stdin.destroy()); // cancelled, or somebody else has the task

process.stdin.setEncoding("utf8").on("data", (text) => say({ kind: "chunk", text }));
process.stdin.on("close", () => { over = true; say(); });

const { error, cancel_requested } = await report;
if (error && !cancel_requested) throw new Error(error.message);
const state = cancel_requested ? "cancelled" : "succeeded";
const answer = await post(`end?attempt=${attempt}`, "application/json", () => JSON.stringify({ state }));
console.log(answer.error?.message ?? answer.state);
