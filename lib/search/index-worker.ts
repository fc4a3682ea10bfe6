/** The thread of an `IndexThread`: one index, and queries as they come. */
import { parentPort, workerData } from 'node:worker_threads'
import { SsrlError } from '../errors.ts'
import type { IndexAnswer, IndexQuestion } from './index-thread.ts'
import { LocalIndex } from './local-index.ts'

const port = parentPort!
const describe = (error: unknown) =>
  error instanceof SsrlError
    ? { code: error.code, message: error.message }
    : { code: 'ERR_SEARCH' as const, message: (error as Error).message }

try {
  const index = await LocalIndex.open(workerData as string)
  port.on('message', ({ id, query, topK }: IndexQuestion) => {
    try {
      port.postMessage({ id, documents: index.search(query, topK) } satisfies IndexAnswer)
    } catch (error) {
      port.postMessage({ id, failure: describe(error) } satisfies IndexAnswer)
    }
  })
  port.postMessage({ id: -1, size: index.size } satisfies IndexAnswer)
} catch (error) {
  port.postMessage({ id: -1, failure: describe(error) } satisfies IndexAnswer)
}
