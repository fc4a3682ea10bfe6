import test from 'ava'
import type { Variant } from '../../bench/cases.ts'
import { readQuestions } from '../../bench/prompts.ts'
import { measure, type Session } from '../../bench/runner.ts'
import { kernels } from '../../lib/index.ts'

const bf16 = await kernels
  .matmul({ x: new Uint16Array(1), weight: new Float32Array(1), inputs: 1 })
  .then(() => true)
  .catch(() => false)

const session = async (): Promise<Session> => ({
  settings: {
    names: [],
    threads: 1,
    peers: false,
    quick: true,
    rounds: 2,
    only: [],
    output: undefined,
  },
  questions: await readQuestions(),
  run: { run: 'now', commit: 'none', cpu: 'some' },
  limits: new Map(),
  note: () => {},
})

const variant = (sizes: Variant['sizes']): Variant => ({
  case: 'smoke',
  id: 'smoke',
  title: 'smoke',
  unit: 'tok/s',
  sizes,
  model: 'tiny',
})

test('a case runs in processes of its own: figures, checked tokens, memory and the share of the limit', async (t) => {
  const sizes = { kind: 'generate', prompts: 3, promptTokens: 9, n: 2, newTokens: [3, 5] } as const
  const rows = await measure(variant({ ...sizes, newTokens: [...sizes.newTokens] }), await session())
  const row = rows.find(({ contender }) => contender === 'ssrl f32')!
  t.true(row.median > 0)
  t.true(row.p20 <= row.median && row.median <= row.p80)
  t.is(row.samples, 4)
  t.regex(row.check, /greedy tokens at most 0\.?0* nats below the likeliest/)
  t.true(row.limitShare > 0)
  t.true(row.peakMiB > 10)
  t.regex(row.versions, /^ssrl \d/)
})

test('a learner case compares the gradients of its contenders before it counts', async (t) => {
  const sizes = { kind: 'learner', sequences: 2, tokens: 12, promptTokens: 4 } as const
  const rows = await measure(variant(sizes), await session())
  for (const row of rows.filter(({ dtype }) => bf16 || dtype === 'f32')) {
    t.regex(row.check, /gradient norm .* \(off by /)
    t.is(row.optimizer, 'f32')
    t.true(row.median > 0)
  }
})

test('single operations are timed without copying their arguments', async (t) => {
  for (const kind of ['matmul', 'attention', 'policy-loss', 'sampling'] as const) {
    const rows = await measure({ ...variant({ kind, rows: 4 }), unit: 'ms' }, await session())
    const row = rows.find(({ contender }) => contender === 'ssrl f32')!
    t.true(row.median > 0, `${kind}: ${row.note}`)
  }
})

test('steps of the trainer are watched from the main thread, and for their memory', async (t) => {
  const sizes = { steps: 10, prompts: 1, n: 2, newTokens: 4 }
  const figures: Record<string, number> = {}
  for (const kind of ['loop-lag', 'typescript', 'memory'] as const) {
    const [row] = await measure({ ...variant({ kind, ...sizes }), unit: '%' }, await session())
    figures[kind] = row!.median
  }
  t.true(figures['loop-lag']! >= 0)
  t.true(figures.typescript! > 0 && figures.typescript! < 100)
  t.true(Number.isFinite(figures.memory))
})

test('what could not be run is a row that says why', async (t) => {
  const sizes = { kind: 'prefill', promptTokens: 9 } as const
  const { settings, ...rest } = await session()
  const rows = await measure(variant(sizes), { ...rest, settings: { ...settings, threads: 100_000 } })
  t.is(rows.length, 2)
  for (const row of rows) {
    t.is(row.median, Number.NaN)
    t.regex(row.note, /threads/)
  }
})
