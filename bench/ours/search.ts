import { createWriteStream, existsSync, readFileSync } from 'node:fs'
import { mkdir, rename } from 'node:fs/promises'
import path from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Policy } from '../../lib/policy/policy.ts'
import { createSearch } from '../../lib/rollout/search.ts'
import { selfSearchAll } from '../../lib/rollout/self-search.ts'
import { IndexThread } from '../../lib/search/index-thread.ts'
import { buildIndex, LocalIndex, readCorpus } from '../../lib/search/local-index.ts'
import type { SearchProvider } from '../../lib/search/provider.ts'
import { type BootstrapShot, fewShotPrompt } from '../../lib/training/bootstrap.ts'
import type { CorpusWork, Result, SearchWork } from '../job.ts'
import { passages, queries } from '../passages.ts'
import { quantile } from '../statistics.ts'
import type { Repeats } from './timed.ts'

type Partial = Omit<Result, 'peak' | 'version'>

const cache = fileURLToPath(new URL('../.cache/corpora/', import.meta.url))

/** The corpus as a file; made once, as what is measured is `ssrl index`. */
async function corpusFile(count: number): Promise<string> {
  const file = path.join(cache, `passages-${count}.jsonl`)
  if (existsSync(file)) return file
  await mkdir(cache, { recursive: true })
  const lines = function* () {
    for (const { id, title, text } of passages(count))
      yield `${JSON.stringify({ id, title, contents: text })}\n`
  }
  await pipeline(Readable.from(lines()), createWriteStream(`${file}.partial`))
  await rename(`${file}.partial`, file)
  return file
}

const indexFolder = (count: number) => path.join(cache, `passages-${count}.index`)

/** Seconds from a corpus on disk to an index on disk, which stays for the queries. */
export async function searchIndex({ passages: count }: CorpusWork): Promise<Partial> {
  const file = await corpusFile(count)
  const start = performance.now()
  await buildIndex(readCorpus(file), indexFolder(count))
  return { values: [(performance.now() - start) / 1000] }
}

/** Milliseconds of each query, from the main thread and back, one after another. */
export async function searchQuery(work: CorpusWork): Promise<Partial> {
  const folder = indexFolder(work.passages)
  if (!existsSync(folder)) await buildIndex(readCorpus(await corpusFile(work.passages)), folder)
  const opening = performance.now()
  ;(await LocalIndex.open(folder)).close()
  const opened = performance.now() - opening
  const index = await IndexThread.open(folder)
  const values: number[] = []
  for (const query of queries(work.queries, work.passages)) {
    const start = performance.now()
    await index.search(query, 3)
    values.push(performance.now() - start)
  }
  await index.close()
  return {
    values,
    note: `opened in ${opened.toFixed(0)} ms; the slowest query ${Math.max(...values).toFixed(0)} ms`,
  }
}

/** A policy as it came writes searches where it is shown some. */
function prompts(policy: Policy, { questions }: SearchWork) {
  const file = new URL('../../examples/trivia-shots.jsonl', import.meta.url)
  const lines = readFileSync(file, 'utf8').trim().split('\n')
  const shots = lines.map((line) => JSON.parse(line) as BootstrapShot)
  return questions.map((question, index) => ({
    question: { id: String(index), question, goldenAnswers: [], fields: {} },
    promptTokens: policy.tokenizer!.encodeSegments(fewShotPrompt(shots, question)),
  }))
}

/** Percent of a rollout's time in which the generator was at work while an engine takes its time for each search. */
export async function searchBusy(policy: Policy, work: SearchWork, repeats: Repeats): Promise<Partial> {
  const encoded = prompts(policy, work)
  const rollOut = async (latency: number, seed: number) => {
    const search = createSearch({ provider: slowEngine(latency), maxSearches: 4 })
    const before = await policy.generatorStatistics()
    const start = performance.now()
    const groups = await selfSearchAll(policy, encoded, {
      n: work.n,
      maxNewTokens: work.newTokens,
      search,
      seed,
    })
    const wall = (performance.now() - start) / 1000
    const { seconds, steps } = await policy.generatorStatistics()
    const searches = groups.flat().reduce((sum, row) => sum + row.searches.length, 0)
    return { wall, share: (100 * (seconds - before.seconds)) / wall, steps: steps - before.steps, searches }
  }
  for (let i = 0; i < repeats.warmUps; i++) await rollOut(0, 0)
  const slow: Awaited<ReturnType<typeof rollOut>>[] = []
  const quick: typeof slow = []
  for (let i = 1; i <= repeats.repeats; i++) {
    slow.push(await rollOut(work.latency, i))
    quick.push(await rollOut(0, i))
  }
  const told = (runs: typeof slow) => {
    const median = (name: 'wall' | 'share' | 'steps') =>
      quantile(
        runs.map((run) => run[name]),
        0.5,
      )
    return `${median('wall').toFixed(1)} s and ${Math.round(median('steps'))} steps`
  }
  return {
    values: slow.map(({ share }) => share),
    note:
      `${Math.round(
        quantile(
          slow.map(({ searches }) => searches),
          0.5,
        ),
      )} searches, ${told(slow)}; with an engine that ` +
      `answers at once ${told(quick)}, ${quantile(
        quick.map(({ share }) => share),
        0.5,
      ).toFixed(1)} % at work`,
  }
}

/** Three documents of some thirty words, after a while. */
function slowEngine(latency: number): SearchProvider {
  const text =
    'Nothing that was found says more of it than that it is known to those who have seen it. '.repeat(2)
  return {
    name: 'slow',
    search: async (asked, { topK, signal }) => {
      if (latency > 0) await sleep(latency, undefined, { signal })
      return asked.map(() => ({ documents: Array.from({ length: topK }, () => ({ text })) }))
    },
  }
}
