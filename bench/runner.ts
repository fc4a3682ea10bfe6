/** One variant, all its contenders in turn, and the rows that come of it. */
import { fileURLToPath } from 'node:url'
import type { Settings } from './arguments.ts'
import { tokensOf, type Variant } from './cases.ts'
import { type Check, checkGradient, checkRegret } from './checks.ts'
import { type Contender, contendersOf, measureLimits, reference } from './contenders.ts'
import type { Job, Result, Work } from './job.ts'
import { type BenchModel, prepareModel } from './models.ts'
import { productsOf } from './products.ts'
import type { BenchQuestion } from './prompts.ts'
import type { Row } from './results.ts'
import { type Summary, summarize } from './statistics.ts'
import { type Limit, limitRows, limitSeconds, workOf } from './work.ts'

/** Not to stand in results: it is another on every machine. */
const root = fileURLToPath(new URL('../', import.meta.url))

export interface Session {
  settings: Settings
  questions: readonly BenchQuestion[]
  /** What every row of the run says. */
  run: Pick<Row, 'run' | 'commit' | 'cpu'>
  /** By model, dtype and threads. */
  limits: Map<string, Promise<{ limit: Limit; source: string }>>
  note(text: string): void
}

/** What came of a contender: results of its rounds, or why there are none. */
interface Entry {
  contender: Contender
  job: Job | null
  results: Result[]
  problem: string
}

export async function measure(variant: Variant, session: Session): Promise<Row[]> {
  const { settings } = session
  const model = await prepareModel(variant.model, settings.policy)
  const work = workOf(variant, model, session.questions)
  const entries: Entry[] = []
  for (const contender of contendersOf(variant, settings)) {
    if (!isWanted(contender, settings)) continue
    entries.push(await enter(contender, { variant, model, work, settings }))
  }
  for (let round = 0; round < settings.rounds; round++) {
    for (const entry of turnsOf(entries)) await takeTurn(entry, variant, session)
  }
  const checks = await check(entries, model, work)
  return toRows(entries, checks, { variant, model, session })
}

const isWanted = ({ peer, name }: Contender, { only }: Settings) =>
  !peer || only.length === 0 || only.some((beginning) => name.startsWith(beginning))

/** Ours of the same kind before each peer, so that a machine that drifts drifts for both. */
function turnsOf(entries: readonly Entry[]): Entry[] {
  const own = entries.filter(({ contender }) => !contender.peer)
  const counterpart = ({ contender }: Entry) =>
    own.find((entry) => (entry.contender.dtype === 'f32') === (contender.dtype === 'f32')) ?? own[0]!
  const able = entries.filter(({ contender, problem }) => contender.peer && problem === '')
  const turns = able.flatMap((peer) => [counterpart(peer), peer])
  return [...own.filter((entry) => !turns.includes(entry)), ...turns]
}

interface Place {
  variant: Variant
  model: BenchModel
  work: Work | null
  settings: Settings
}

async function enter(contender: Contender, { variant, model, work, settings }: Place): Promise<Entry> {
  const entry: Entry = { contender, job: null, results: [], problem: contender.obstacle() ?? '' }
  if (entry.problem !== '') return entry
  const file = await contender.file(model)
  if (file === null) return { ...entry, problem: 'the policy brings no Q4_1 file along' }
  const { dtype, warmUps, repeats } = contender
  const threads = variant.threads ?? settings.threads
  entry.job = { model: file, dtype, threads, warmUps, repeats, ...(work ?? { kind: 'load' }) }
  return entry
}

async function takeTurn(entry: Entry, variant: Variant, { note }: Session): Promise<void> {
  const { contender, job } = entry
  if (job === null || entry.problem !== '') return
  const isShown = entry.results.length > 0
  const asked = isShown && job.kind === 'generate' ? { ...job, greedyTokens: 0 } : job
  try {
    const result = await contender.run(asked, variant)
    entry.results.push(result)
    const { median } = summarize(figuresOf(variant, [result]))
    note(`  ${variant.id}, ${contender.name}: ${median.toPrecision(4)} ${variant.unit}`)
  } catch (error) {
    entry.problem = problemOf(error)
    note(`  ${variant.id}, ${contender.name}: ${entry.problem}`)
  }
}

/** Of a failed process the last line that names an error, else what it wrote last. */
function problemOf(error: unknown): string {
  const { stderr = '', message = 'failed', signal } = error as Record<string, string | undefined>
  if (signal === 'SIGKILL') return 'ended by the system, as when memory runs out'
  const lines = stderr.split('\n').filter((line) => line.trim() !== '')
  const named = lines.findLast((line) => /^\w*(Error|Exception)\b/.test(line))
  return (named ?? lines.at(-1) ?? message.split('\n')[0]!).replaceAll(root, '').slice(0, 200)
}

function figuresOf(variant: Variant, results: readonly Result[]): number[] {
  const values = results.flatMap((result) => result.values)
  // What must never happen is judged by its worst case.
  if (variant.sizes.kind === 'loop-lag') return values.length === 0 ? [] : [Math.max(...values)]
  return variant.unit === 'tok/s' ? values.map((seconds) => tokensOf(variant.sizes) / seconds) : values
}

async function check(entries: readonly Entry[], model: BenchModel, work: Work | null): Promise<Check[]> {
  const measured = entries.map(({ results }) => results[0])
  if (work?.kind === 'generate') {
    const greedy = measured.map((result) => result?.greedy ?? [])
    const { prompts } = work
    const threads = entries[0]!.job!.threads
    const job: Job = {
      model: model.source,
      dtype: 'f32',
      threads,
      warmUps: 0,
      repeats: 1,
      kind: 'regret',
      prompts,
      greedy,
    }
    const { regret } = await reference.run(job, {} as Variant)
    return entries.map(({ contender }, i) => checkRegret(regret![i] ?? undefined, contender))
  }
  if (work?.kind === 'learner') {
    const exact = entries.findIndex(({ contender }) => contender.name === 'ssrl f32')
    const first = measured[exact] ?? measured[0]
    return entries.map(({ contender }, i) =>
      first && measured[i] ? checkGradient(measured[i], first, contender) : { text: '', holds: true },
    )
  }
  return entries.map(() => ({ text: '', holds: true }))
}

interface RowContext {
  variant: Variant
  model: BenchModel
  session: Session
}

async function toRows(
  entries: readonly Entry[],
  checks: readonly Check[],
  context: RowContext,
): Promise<Row[]> {
  const { variant, model, session } = context
  const summaries = entries.map(({ results }, i) =>
    summarize(checks[i]!.holds ? figuresOf(variant, results) : []),
  )
  const rows: Row[] = []
  for (const [i, { contender, results, problem }] of entries.entries()) {
    const threads = variant.threads ?? session.settings.threads
    const share = contender.peer ? null : await limitShare(entries[i]!, summaries[i]!, context)
    const wrong = checks[i]!.holds ? '' : 'not counted: the check failed'
    const notes = [problem, wrong, results[0]?.note ?? '', share?.source ?? '']
    rows.push({
      ...session.run,
      threads,
      variant: variant.id,
      model: variant.data ?? model.name,
      contender: contender.name,
      dtype: variant.data === undefined ? contender.dtype : '',
      optimizer: contender.optimizer,
      unit: variant.unit,
      ...summaries[i]!,
      ratios: contender.peer ? '' : ratios(i, entries, summaries, variant),
      limitShare: share?.percent ?? Number.NaN,
      peakMiB: peakOf(results) / 2 ** 20,
      check: checks[i]!.text,
      versions: results[0]?.version ?? '',
      note: notes.filter((text) => text !== '').join('; '),
    })
  }
  return rows
}

const peakOf = (results: readonly Result[]) =>
  results.length === 0 ? Number.NaN : Math.max(...results.map(({ peak }) => peak))

/** How many times faster this contender is than each peer. */
function ratios(
  own: number,
  entries: readonly Entry[],
  summaries: readonly Summary[],
  { unit }: Variant,
): string {
  const mine = summaries[own]!.median
  return entries
    .flatMap(({ contender }, i) => {
      const { median } = summaries[i]!
      if (!contender.peer || Number.isNaN(median) || Number.isNaN(mine)) return []
      const ratio = unit === 'tok/s' ? mine / median : median / mine
      return [`${contender.name} ${ratio.toPrecision(3)}`]
    })
    .join('; ')
}

/** Percent of the speed that the matrix products alone would allow, measured now at the same shapes. */
async function limitShare(
  { contender: { dtype }, results }: Entry,
  { median }: Summary,
  { variant, model, session }: RowContext,
): Promise<{ percent: number; source: string } | null> {
  const recomputed = results[0]?.recomputed ?? 0
  const { sizes, unit } = variant
  const seconds = unit === 'tok/s' ? tokensOf(sizes) / median : median
  const nothing = limitRows.map(() => [0, 0, 0, 0, 0])
  if (!(seconds > 0) || Number.isNaN(limitSeconds(sizes, { layers: 1, recomputed: 0 }, nothing))) return null
  const threads = variant.threads ?? session.settings.threads
  const key = `${model.name} ${dtype} ${threads}`
  let found = session.limits.get(key)
  if (!found) {
    found = fastestProducts(model, dtype, threads, session)
    session.limits.set(key, found)
  }
  const { limit, source } = await found
  const depth = { layers: model.config.numLayers, recomputed }
  return { percent: (100 * limitSeconds(sizes, depth, limit)) / seconds, source }
}

async function fastestProducts(model: BenchModel, dtype: string, threads: number, session: Session) {
  const job: Job = {
    ...{ model: '', dtype, threads, warmUps: 1, repeats: session.settings.quick ? 3 : 30 },
    ...{ kind: 'limit', products: productsOf(model.config), rows: limitRows },
  }
  const results = await measureLimits(job, session.settings.peers)
  const limit = limitRows.map((_, row) =>
    productsOf(model.config).map((_, product) =>
      Math.min(...results.map((result) => result.limit![row]![product]!)),
    ),
  )
  const source = `limit from ${results.length > 1 ? 'the faster of our products and PyTorch, shape by shape' : 'our own products'}`
  return { limit, source }
}
