import { readdir, readFile } from 'node:fs/promises'
import test from 'ava'
import { fill, performancePart, pictureFiles, readmePart } from '../../bench/documents.ts'
import { cpusOf, latestOf } from '../../bench/latest.ts'
import { type Row, readRows } from '../../bench/results.ts'
import { outcomeOf, targets } from '../../bench/targets.ts'

const row = (values: Partial<Row>): Row => ({
  run: '2026-01-01T00:00:00.000Z',
  commit: 'abc1234',
  cpu: 'AMD Some',
  threads: 2,
  variant: 'generate/32',
  model: 'smollm2',
  contender: 'ssrl bf16',
  dtype: 'bf16',
  optimizer: '',
  unit: 'tok/s',
  median: 1000,
  p20: 990,
  p80: 1010,
  samples: 9,
  ratios: '',
  limitShare: 50,
  peakMiB: 600,
  check: '',
  versions: 'ssrl 0.1.0',
  note: '',
  ...values,
})
const peer = (values: Partial<Row>) => row({ contender: 'llama.cpp bf16', limitShare: Number.NaN, ...values })
const outcome = (rows: Row[], cpu = 'AMD Some') =>
  targets
    .map((target) => outcomeOf(target, latestOf(rows, cpu, [rows[0]!.variant])))
    .filter(({ met }) => met !== null)

const root = new URL('../../', import.meta.url)
const read = (name: string) => readFile(new URL(name, root), 'utf8')

test('README.md, docs/performance.md and its pictures are what bench/results.csv says', async (t) => {
  const rows = await readRows()
  const readme = await read('README.md')
  t.is(readme, fill(readme, 'bench', readmePart(rows)), 'run: npm run docs:bench')
  const performance = await read('docs/performance.md')
  t.is(performance, fill(performance, 'bench', performancePart(rows)), 'run: npm run docs:bench')
  const files = pictureFiles(rows)
  const there = await readdir(new URL('docs/performance/', root)).catch(() => [])
  t.deepEqual(there.sort(), Object.keys(files).sort(), 'run: npm run docs:bench')
  for (const [name, svg] of Object.entries(files)) t.is(await read(`docs/performance/${name}`), svg, name)
})

test('a part is replaced between its marks and nowhere else; without marks it is an error', (t) => {
  const document = 'a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n'
  t.is(fill(document, 'bench', 'new'), 'a\n<!-- bench -->\nnew\n<!-- /bench -->\nb\n')
  t.throws(() => fill('no marks', 'bench', 'new'), { message: /Expected <!-- bench -->/ })
})

test('only the newest run of a variant counts, and a real model before random weights', (t) => {
  const rows = [
    row({ median: 1 }),
    row({ median: 2, run: '2026-01-02T00:00:00.000Z' }),
    row({ median: 3, run: '2026-01-03T00:00:00.000Z', model: 'random, tiny' }),
    row({ median: 4, run: '2026-01-04T00:00:00.000Z', cpu: 'Another' }),
  ]
  t.deepEqual(cpusOf(rows), ['Another', 'AMD Some'])
  const found = latestOf(rows, 'AMD Some', ['generate-one', 'generate/32'])
  t.deepEqual(
    found.map(({ variant, rows: kept }) => [variant, kept.map(({ median }) => median)]),
    [['generate/32', [2]]],
  )
})

test('a target is judged by the ratio to its peer: tokens a second upwards, seconds downwards, memory', (t) => {
  const generation = outcome([row({}), peer({ median: 125 })])
  t.like(generation[0], { target: '≥ 8× llama.cpp bf16', measured: '8× (1000 to 125 tok/s)', met: true })
  t.false(outcome([row({}), peer({ median: 126 })])[0]!.met)
  const step = { variant: 'grpo-step', unit: 's', limitShare: Number.NaN }
  const [time, memory] = outcome([
    row({ ...step, median: 10, peakMiB: 1000 }),
    peer({ ...step, contender: 'TRL bf16', median: 70, peakMiB: 3999 }),
  ])
  t.like(time, { measured: '7× (10 to 70 s)', met: true })
  t.like(memory, { measured: '0.25 of its memory (1000 of 3999 MiB)', met: false })
})

test('a share of the limit has its own target where an Intel CPU has AMX', (t) => {
  t.true(outcome([row({ limitShare: 45 })])[0]!.met)
  t.false(outcome([row({ limitShare: 44 })])[0]!.met)
  t.true(outcome([row({ limitShare: 44, cpu: 'Intel Xeon' })], 'Intel Xeon')[0]!.met)
})

test('what was not measured has no figure: neither a target nor a row invents one', (t) => {
  const rows = [row({}), peer({ median: Number.NaN, peakMiB: Number.NaN, note: 'not installed' })]
  t.is(
    outcome(rows).find(({ target }) => target.includes('llama.cpp')),
    undefined,
  )
  const text = performancePart(rows)
  t.regex(text, /\| llama\.cpp bf16 \|.*not installed \|/)
  t.notRegex(text, /NaN/)
  t.notRegex(readmePart(rows), /NaN/)
})

test('pictures show every contender with a figure, names escaped', (t) => {
  const files = pictureFiles([
    row({}),
    peer({ contender: 'a <b> & c' }),
    peer({ contender: 'none', median: Number.NaN }),
  ])
  t.deepEqual(Object.keys(files), ['1-generate-32.svg'])
  const svg = files['1-generate-32.svg']!
  t.regex(svg, /^<svg [\s\S]*ssrl bf16[\s\S]*a &lt;b&gt; &amp; c[\s\S]*<\/svg>\n$/)
  t.notRegex(svg, /none|NaN/)
})

test('contexts become lines over the number of tokens', (t) => {
  const rows = [512, 1024].map((tokens) => row({ variant: `prefill/${tokens}`, median: tokens }))
  t.deepEqual(Object.keys(pictureFiles(rows)), ['1-prefill.svg'])
})
