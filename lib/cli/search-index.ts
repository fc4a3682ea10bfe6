import { stat } from 'node:fs/promises'
import { Command } from 'commander'
import { Progress } from '../logging/progress.ts'
import { note, printJson } from './common.ts'
import { onInterrupt } from './interrupt.ts'

interface IndexFlags {
  corpus: string
  output?: string
  json?: boolean
}

/** `ssrl index`: a corpus becomes a local BM25 index. */
export function indexCommand(): Command {
  return new Command('index')
    .description(
      'Index passages for local search (BM25). A line of the corpus is {"id", "title", "contents"} or {"id", "contents"}, ' +
        'where contents may begin with a quoted title. Search it by `ssrl train --search-provider local:FOLDER` or ' +
        '`ssrl retrieve --corpus FOLDER`.',
    )
    .requiredOption('--corpus <file>', 'passages (JSONL)')
    .option('-o, --output <folder>', "the index's folder (default: the corpus's name with .index behind it)")
    .option('--json', 'print the number of passages and the folder as JSON')
    .action(async ({ corpus, output = `${corpus}.index`, json }: IndexFlags) => {
      const interrupt = onInterrupt('stopping; nothing of the index is kept')
      try {
        const passages = await indexCorpus(corpus, output, interrupt.signal)
        if (json) printJson({ passages, index: output })
        note(`indexed ${passages} passages into ${output}`)
      } finally {
        interrupt.dispose()
      }
    })
}

/** Builds an index with progress on stderr, and gives its number of passages. */
export async function indexCorpus(corpus: string, output: string, signal: AbortSignal): Promise<number> {
  const { buildIndex, readCorpus } = await import('../search/local-index.ts')
  const megabytes = (bytes: number) => Math.round(bytes / 1e6)
  // A file that can't be read is told by the reader.
  const { size } = await stat(corpus).catch(() => ({ size: 0 }))
  const progress = new Progress({ total: megabytes(size), label: 'megabyte', interval: 5000 })
  let read = 0
  const lines = readCorpus(corpus, {
    signal,
    onRead: (bytes) => {
      read = bytes
    },
  })
  const { passages } = await buildIndex(lines, output, {
    signal,
    onProgress: (count) => progress.update(megabytes(Math.min(read, size)), `${count} passages`),
  })
  progress.finish()
  return passages
}
