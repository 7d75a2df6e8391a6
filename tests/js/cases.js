// What the runners of the shared cases need: the cases themselves, and every way to cut bytes.

import { readFileSync } from 'node:fs'
import { parse } from 'yaml'

const FOLDER = new URL('../client/cases/', import.meta.url)

/** The cases of a file in tests/client/cases. */
export const casesOf = (file) => parse(readFileSync(new URL(file, FOLDER), 'utf8'))

/** The bytes that a case writes as text, or as hex. */
export const bytesOf = ({ stream, hex }) =>
  hex === undefined ? new TextEncoder().encode(stream) : Uint8Array.from(hex.split(/\s+/), (byte) => parseInt(byte, 16))

/** The bytes whole, cut in two at every byte, and byte by byte. */
export function* everyCut(bytes) {
  for (let at = 0; at <= bytes.length; at++) yield [bytes.subarray(0, at), bytes.subarray(at)]
  yield [...bytes].map((byte) => Uint8Array.of(byte))
}
