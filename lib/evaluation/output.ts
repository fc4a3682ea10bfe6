/** The folder that an evaluation writes: `predictions.jsonl` and `summary.json`, both or neither. */
import { type FileHandle, mkdir, open, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SsrlError } from '../errors.ts'
import type { Summary } from './summary.ts'

/** Writes beside the final names and renames at the end, so that a run that fails leaves an earlier result as it was. */
export class EvaluationWriter {
  #directory: string
  #file: FileHandle
  #pending: string[] = []
  #pendingLength = 0
  #finished = false

  private constructor(directory: string, file: FileHandle) {
    this.#directory = directory
    this.#file = file
  }

  /** Makes the folder if it is not there. Throws `ERR_IO` when it cannot be written. */
  static async open(directory: string): Promise<EvaluationWriter> {
    try {
      await mkdir(directory, { recursive: true })
      return new EvaluationWriter(directory, await open(join(directory, PARTIAL_PREDICTIONS), 'w'))
    } catch (cause) {
      throw writeError(directory, cause)
    }
  }

  /** Adds one line, in the order of the calls. */
  async prediction(row: Record<string, unknown>): Promise<void> {
    const line = `${JSON.stringify(row)}\n`
    this.#pending.push(line)
    this.#pendingLength += line.length
    if (this.#pendingLength > 1 << 20) await this.#flush()
  }

  /** Completes both files. */
  async finish(summary: Summary): Promise<void> {
    await this.#flush()
    try {
      await this.#file.close()
      const partial = join(this.#directory, PARTIAL_SUMMARY)
      await writeFile(partial, `${JSON.stringify(summary, null, 2)}\n`)
      await rename(join(this.#directory, PARTIAL_PREDICTIONS), join(this.#directory, 'predictions.jsonl'))
      await rename(partial, join(this.#directory, 'summary.json'))
      this.#finished = true
    } catch (cause) {
      throw writeError(this.#directory, cause)
    }
  }

  /** Takes away what is not finished. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#finished) return
    // After a failed finish the file may be closed already.
    await this.#file.close().catch(() => undefined)
    await rm(join(this.#directory, PARTIAL_PREDICTIONS), { force: true })
    await rm(join(this.#directory, PARTIAL_SUMMARY), { force: true })
  }

  async #flush(): Promise<void> {
    const text = this.#pending.join('')
    this.#pending = []
    this.#pendingLength = 0
    try {
      await this.#file.writeFile(text)
    } catch (cause) {
      throw writeError(this.#directory, cause)
    }
  }
}

const PARTIAL_PREDICTIONS = 'predictions.jsonl.partial'
const PARTIAL_SUMMARY = 'summary.json.partial'

function writeError(directory: string, cause: unknown): SsrlError {
  const message = cause instanceof Error ? cause.message : String(cause)
  return new SsrlError('ERR_IO', `Cannot write the results into ${directory}: ${message}`, { cause })
}
