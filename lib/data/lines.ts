/** Reading files of one JSON value a line. */
import { createReadStream } from 'node:fs'
import { SsrlError } from '../errors.ts'

export interface JsonLine {
  /** Counted from 1, blank lines included. */
  line: number
  value: unknown
  /** Where the line ends in the file. */
  bytes: number
}

const NEWLINE = 0x0a

/**
 * The values of a JSONL file in order; blank lines are passed over. Lines end at `\n` alone (a raw U+2028 is text).
 * Throws `ERR_DATASET` with file and line for a line that is not JSON or not UTF-8, and for a file that cannot be read.
 */
export async function* readJsonLines(path: string, signal?: AbortSignal): AsyncGenerator<JsonLine> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let line = 0
  let end = 0
  for await (const bytes of readByteLines(path, signal)) {
    line++
    end += bytes.length + 1
    let text: string
    try {
      text = decoder.decode(bytes)
    } catch (cause) {
      throw new SsrlError(
        'ERR_DATASET',
        `${path}:${line}: expected UTF-8 text but found bytes that are not`,
        { cause },
      )
    }
    if (text.trim() !== '') yield { line, value: parseLine(text, path, line), bytes: end }
  }
}

function parseLine(text: string, path: string, line: number): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    const shown = text.length > 60 ? `${text.slice(0, 60)}…` : text
    throw new SsrlError(
      'ERR_DATASET',
      `${path}:${line}: expected one JSON value per line but received ${JSON.stringify(shown)} (${(cause as Error).message})`,
      { cause },
    )
  }
}

async function* readByteLines(path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  let parts: Buffer[] = []
  for await (const chunk of readChunks(path, signal)) {
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      parts.push(chunk.subarray(start, end))
      yield Buffer.concat(parts)
      parts = []
      start = end + 1
    }
    parts.push(chunk.subarray(start))
  }
  const last = Buffer.concat(parts)
  if (last.length > 0) yield last
}

async function* readChunks(path: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  const stream = createReadStream(path)
  try {
    for await (const chunk of stream) {
      signal?.throwIfAborted()
      yield chunk as Buffer
    }
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof SsrlError || typeof (cause as NodeJS.ErrnoException).code !== 'string') throw cause
    throw new SsrlError('ERR_DATASET', `Cannot read ${path}: ${(cause as Error).message}`, { cause })
  } finally {
    stream.destroy()
  }
}
