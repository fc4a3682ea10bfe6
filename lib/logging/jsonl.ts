import { open, readFile } from 'node:fs/promises'
import { SsrlError } from '../errors.ts'

/**
 * Appends records to a file, one JSON object a line. Each append is complete on its own: a crash loses no earlier line,
 * and one that fails leaves the file as it was.
 */
export class JsonlWriter {
  readonly path: string

  constructor(path: string) {
    this.path = path
  }

  /** @throws SsrlError `ERR_IO` when the file can't be written. */
  async append(...records: unknown[]): Promise<void> {
    if (records.length === 0) return
    const lines = records.map((record) => `${JSON.stringify(record)}\n`).join('')
    try {
      await appendWhole(this.path, lines)
    } catch (cause) {
      throw new SsrlError('ERR_IO', `Could not append to ${this.path}: ${(cause as Error).message}`, {
        cause,
      })
    }
  }
}

/** A disk that is nearly full takes the first half of the lines; what comes later must not be joined to it. */
async function appendWhole(path: string, lines: string): Promise<void> {
  const handle = await open(path, 'a')
  try {
    const { size } = await handle.stat()
    try {
      await handle.writeFile(lines)
    } catch (error) {
      await handle.truncate(size).catch(() => {})
      throw error
    }
  } finally {
    await handle.close()
  }
}

/**
 * Reads a JSONL file. A last line without its end (a crash in the middle of a write) is left out.
 *
 * @throws SsrlError `ERR_IO` when the file can't be read, `ERR_DATASET` with the line number when a line is not JSON.
 */
export async function readJsonl<T>(path: string): Promise<T[]> {
  let content: string
  try {
    content = await readFile(path, 'utf8')
  } catch (cause) {
    throw new SsrlError('ERR_IO', `Could not read ${path}: ${(cause as Error).message}`, { cause })
  }
  const lines = content.split('\n')
  const unfinished = lines.pop()!
  const records = lines.flatMap((line, index) =>
    line.trim() === '' ? [] : [parseLine<T>(line, path, index + 1)],
  )
  try {
    if (unfinished.trim() !== '') records.push(JSON.parse(unfinished) as T)
  } catch {}
  return records
}

function parseLine<T>(line: string, path: string, number: number): T {
  try {
    return JSON.parse(line) as T
  } catch (cause) {
    throw new SsrlError(
      'ERR_DATASET',
      `Expected JSON on line ${number} of ${path}: ${(cause as Error).message}`,
      {
        cause,
      },
    )
  }
}
