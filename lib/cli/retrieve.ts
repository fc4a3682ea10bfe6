import { mkdtemp, rm, stat } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { Command } from 'commander'
import { SsrlError } from '../errors.ts'
import { integer, note, print } from './common.ts'
import { onInterrupt } from './interrupt.ts'
import { indexCorpus } from './search-index.ts'

interface RetrieveFlags {
  corpus: string
  port: number
  host: string
  topK: number
  maxBodyBytes: number
}

/** `ssrl retrieve`: the /retrieve protocol over a local index. */
export function retrieveCommand(): Command {
  return new Command('retrieve')
    .description(
      'Serve the /retrieve protocol of Search-R1 over a corpus: POST {"queries": […], "topk": 3, "return_scores": true}. ' +
        'Nobody but this machine is served unless --host says so. Ctrl-C ends it.',
    )
    .requiredOption(
      '--corpus <path>',
      'an index of `ssrl index`, or passages (JSONL), which are then indexed at each start',
    )
    .option('--port <n>', '0 takes any that is free', integer({ min: 0, max: 65535 }), 8000)
    .option('--host <address>', 'address to listen on; 0.0.0.0 serves the network', '127.0.0.1')
    .option(
      '--top-k <k>',
      'documents for a query where a request does not say',
      integer({ min: 1, max: 100 }),
      3,
    )
    .option('--max-body-bytes <n>', 'longest request', integer({ min: 1 }), 2 ** 20)
    .action(retrieve)
}

async function retrieve(flags: RetrieveFlags): Promise<void> {
  const { IndexThread } = await import('../search/index-thread.ts')
  const { retrieveApp } = await import('../search/retrieve-app.ts')
  const { listen } = await import('../serve/listen.ts')
  const interrupt = onInterrupt()
  const { signal } = interrupt
  const temporary = await mkdtemp(path.join(os.tmpdir(), 'ssrl-retrieve-'))
  try {
    const index = await IndexThread.open(await indexOf(flags.corpus, temporary, signal))
    const search = (query: string, topK: number) => index.search(query, topK)
    const server = await listen(retrieveApp({ ...flags, search }), flags)
    note(`${index.size} passages; Ctrl-C ends it`)
    print(`${server.url}/retrieve`)
    await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    await server.close()
    await index.close()
  } finally {
    interrupt.dispose()
    await rm(temporary, { recursive: true, force: true })
  }
}

/** A folder is an index; a file is indexed into the temporary folder. */
async function indexOf(corpus: string, temporary: string, signal: AbortSignal): Promise<string> {
  const found = await stat(corpus).catch((cause: Error) => {
    throw new SsrlError('ERR_DATASET', `Cannot read ${corpus}: ${cause.message}`, { cause })
  })
  if (found.isDirectory()) return corpus
  await indexCorpus(corpus, temporary, signal)
  return temporary
}
