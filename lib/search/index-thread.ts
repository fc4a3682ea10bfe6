import path from 'node:path'
import { Worker } from 'node:worker_threads'
import { SsrlError } from '../errors.ts'
import type { SearchDocument, SearchFailure } from './provider.ts'

/** To the thread. */
export interface IndexQuestion {
  id: number
  query: string
  topK: number
}

/** From it; what it says of its index has the id -1. */
export type IndexAnswer =
  | { id: number; documents: SearchDocument[] }
  | { id: number; failure: SearchFailure }
  | { id: -1; size: number }

interface Waiting {
  resolve: (documents: SearchDocument[]) => void
  reject: (error: unknown) => void
}

/**
 * A local index on a thread of its own. SQLite answers on the thread that asks, in tens of milliseconds where there are
 * millions of passages; on the main thread that would hold up every row of a rollout.
 */
export class IndexThread {
  /** Number of passages. */
  readonly size: number
  readonly directory: string
  readonly #worker: Worker
  readonly #waiting = new Map<number, Waiting>()
  #next = 0
  #ended: SsrlError | null = null

  private constructor(worker: Worker, directory: string, size: number) {
    this.#worker = worker
    this.directory = directory
    this.size = size
    worker.on('message', (answer: IndexAnswer) => this.#take(answer))
    worker.on('error', (cause) => this.#end(new SsrlError('ERR_SEARCH', cause.message, { cause })))
    worker.on('exit', () => this.#end(new SsrlError('ERR_SEARCH', `The index in ${directory} was closed`)))
  }

  /** @throws SsrlError `ERR_SEARCH` where there is no index, or one of another version */
  static async open(directory: string): Promise<IndexThread> {
    // The sources run as they are in the repository, and as JavaScript in the package.
    const worker = startWorker(directory)
    const answer = await new Promise<IndexAnswer>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    if ('size' in answer) {
      // Whoever forgets to close it can leave all the same.
      worker.unref()
      return new IndexThread(worker, directory, answer.size)
    }
    await worker.terminate()
    const { code, message } = (answer as { failure: SearchFailure }).failure
    throw new SsrlError(code, message)
  }

  /** The best passages; queries are answered one after another. */
  search(query: string, topK: number): Promise<SearchDocument[]> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#ended)
      const id = this.#next++
      if (this.#waiting.size === 0) this.#worker.ref()
      this.#waiting.set(id, { resolve, reject })
      this.#worker.postMessage({ id, query, topK } satisfies IndexQuestion)
    })
  }

  async close(): Promise<void> {
    await this.#worker.terminate()
  }

  #take(answer: IndexAnswer): void {
    const waiting = this.#waiting.get(answer.id)
    this.#waiting.delete(answer.id)
    if (this.#waiting.size === 0) this.#worker.unref()
    if ('documents' in answer) waiting?.resolve(answer.documents)
    else if ('failure' in answer) {
      waiting?.reject(new SsrlError(answer.failure.code, answer.failure.message))
    }
  }

  #end(error: SsrlError): void {
    this.#ended ??= error
    for (const { reject } of this.#waiting.values()) reject(this.#ended)
    this.#waiting.clear()
  }
}

function startWorker(workerData: string): Worker {
  const extension = path.extname(import.meta.url)
  const file = new URL(`index-worker${extension}`, import.meta.url)
  if (extension === '.js') return new Worker(file, { workerData })
  // Run from the sources, tsx has taught TypeScript to the first thread alone.
  const [loader, source] = [import.meta.resolve('tsx/esm/api'), file.href].map((url) => JSON.stringify(url))
  const code = `import(${loader}).then(({ register }) => { register(); return import(${source}) })`
  return new Worker(code, { eval: true, workerData })
}
