import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import test from 'ava'
import { appendRows, columns, parseRows, type Row, readRows } from '../../bench/results.ts'

const row: Row = {
  run: '2026-01-02T03:04:05.000Z',
  commit: 'abc1234',
  cpu: 'A "fast" CPU, 2 cores',
  threads: 2,
  variant: 'generate/32',
  model: 'smollm2',
  contender: 'ssrl bf16',
  dtype: 'bf16',
  optimizer: '',
  unit: 'tok/s',
  median: 1234.5,
  p20: 1200,
  p80: 1250,
  samples: 9,
  ratios: 'llama.cpp bf16 8.1; transformers bf16 9.2',
  limitShare: 45.5,
  peakMiB: 512,
  check: 'greedy tokens agree',
  versions: 'ssrl 0.1.0, Node 20',
  note: 'two\nlines',
}

test('rows come back from the file as they were, commas, quotes and line ends too', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-results-'))
  const file = path.join(folder, 'results.csv')
  await appendRows([row], file)
  await appendRows(
    [
      { ...row, contender: 'ssrl f32' },
      { ...row, median: Number.NaN },
    ],
    file,
  )
  const rows = await readRows(file)
  t.deepEqual(rows[0], row)
  t.is(rows[1]!.contender, 'ssrl f32')
  t.is(rows[2]!.median, Number.NaN)
  t.is((await readFile(file, 'utf8')).split('\n')[0], columns.join())
  await rm(folder, { recursive: true })
})

test('a file that is not there has no rows', async (t) => {
  t.deepEqual(await readRows('/does/not/exist.csv'), [])
})

test('results with other columns are refused', (t) => {
  t.throws(() => parseRows('a,b\n1,2\n'), { message: /Expected the columns run,.* but found a,b/ })
})

test('a quote that is never closed is refused', (t) => {
  t.throws(() => parseRows(`${columns.join()}\n"open`), { message: /closing quote/ })
})
