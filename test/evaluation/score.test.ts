import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { scoreCompletion, scoreFiles } from '../../lib/evaluation/score.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

let folder: string
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ssrl-score-'))
})
test.after.always(() => rm(folder, { recursive: true }))

async function dataFile(name: string, rows: unknown[]): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n'))
  return path
}

async function readLines(path: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(path, 'utf8')
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

testWithShared(
  'every one of the 1,000 Search-R1 transcripts gets the em, sub_em and f1 of FlashRAG',
  async (t) => {
    const path = sharedPath('data', 'search-r1-popqa.transcripts.jsonl')
    const output = join(folder, 'transcripts')
    const summary = await scoreFiles({ data: [path], output })
    const rows = await readLines(path)
    const predictions = await readLines(join(output, 'predictions.jsonl'))
    t.is(predictions.length, 1000)
    for (const [index, row] of rows.entries()) {
      const { prediction, em, f1, cover_em } = predictions[index]!
      t.deepEqual({ prediction, em, f1, cover_em }, {
        prediction: row.prediction,
        em: row.em,
        f1: row.f1,
        cover_em: row.sub_em,
      } as object)
    }
    const benchmark = summary.benchmarks['search-r1-popqa.transcripts']!
    const mean = (name: string) => rows.reduce((sum, row) => sum + Number(row[name]), 0) / rows.length
    t.is(benchmark.n, 1000)
    t.is(benchmark.em, mean('em'))
    t.is(benchmark.f1, mean('f1'))
    t.is(benchmark.cover_em, mean('sub_em'))
  },
)

const answer = (text: string) => `<think>t</think><answer>${text}</answer>`

test('predictions.jsonl has the fields of each input and its scores, in input order', async (t) => {
  const data = await dataFile('fields.jsonl', [
    { id: 'x', note: { deep: [1] }, response: answer(' The Paris '), golden_answers: ['paris'] },
    '',
    { completion: 'nothing', golden_answers: 'Rome', em: 'old' },
  ])
  const output = join(folder, 'fields')
  await scoreFiles({ data: [data], output })
  t.deepEqual((await readdir(output)).toSorted(), ['predictions.jsonl', 'summary.json'])
  t.deepEqual(await readLines(join(output, 'predictions.jsonl')), [
    {
      id: 'x',
      note: { deep: [1] },
      response: answer(' The Paris '),
      golden_answers: ['paris'],
      prediction: 'The Paris',
      em: 1,
      f1: 1,
      cover_em: 1,
      format: 0.5,
    },
    { completion: 'nothing', golden_answers: 'Rome', em: 0, prediction: '', f1: 0, cover_em: 0, format: 0 },
  ])
})

test('summary.json has what the function returns, with its settings and the rule in words', async (t) => {
  const data = await dataFile('returned.jsonl', [{ response: answer('x'), golden_answers: ['x'] }])
  const output = join(folder, 'returned')
  const summary = await scoreFiles({ data: [data], output, seed: 3, format: 'reference' })
  t.deepEqual(JSON.parse(await readFile(join(output, 'summary.json'), 'utf8')), summary)
  t.deepEqual(summary.settings, { data: [data], format: 'reference', seed: 3, resamples: 2000 })
  t.true(summary.scoring.includes('FlashRAG') && summary.scoring.includes('reference'))
})

test('each file is a benchmark: macro is the mean over them, micro the mean over all lines', async (t) => {
  const right = { response: answer('x'), golden_answers: ['x'] }
  const wrong = { response: answer('y'), golden_answers: ['x'] }
  const first = await dataFile('first.jsonl', [right])
  const second = await dataFile('second.test.jsonl', [wrong, wrong, wrong])
  const output = join(folder, 'several')
  const { benchmarks, macro, micro } = await scoreFiles({ data: [first, second], output })
  t.deepEqual(Object.keys(benchmarks), ['first', 'second.test'])
  t.deepEqual([benchmarks.first!.em, benchmarks['second.test']!.em], [1, 0])
  t.deepEqual([macro.em, micro.em, micro.n], [0.5, 0.25, 4])
  const rows = await readLines(join(output, 'predictions.jsonl'))
  t.deepEqual(
    rows.map((row) => row.benchmark),
    ['first', 'second.test', 'second.test', 'second.test'],
  )
})

test('lines of one id and question are samples of one question', async (t) => {
  const row = (id: string, text: string) => ({
    id,
    question: id,
    response: answer(text),
    golden_answers: ['x'],
  })
  const data = await dataFile('samples.jsonl', [row('a', 'x'), row('b', 'x'), row('a', 'y'), row('b', 'x')])
  const { benchmarks } = await scoreFiles({ data: [data] })
  const { n, samples, em, pass, maj } = benchmarks.samples!
  t.deepEqual({ n, samples, em }, { n: 2, samples: 4, em: 0.75 })
  t.deepEqual(pass, { 1: 0.75, 2: 1 })
  t.deepEqual(maj, { 1: 0.75, 2: 1 })
})

test('equal ids with different questions, and lines without id, are questions of their own', async (t) => {
  const row = { response: answer('x'), golden_answers: ['x'] }
  const data = await dataFile('ids.jsonl', [
    { ...row, id: 1, question: 'p' },
    { ...row, id: 1, question: 'q' },
    row,
    row,
  ])
  t.is((await scoreFiles({ data: [data] })).benchmarks.ids!.n, 4)
})

test('the intervals are the same for the same seed and contain the mean', async (t) => {
  const rows = Array.from({ length: 50 }, (_, i) => ({
    response: answer(i % 3 ? 'x' : 'y'),
    golden_answers: ['x'],
  }))
  const data = await dataFile('interval.jsonl', rows)
  const first = (await scoreFiles({ data: [data], seed: 1 })).benchmarks.interval!
  const again = (await scoreFiles({ data: [data], seed: 1 })).benchmarks.interval!
  const other = (await scoreFiles({ data: [data], seed: 2 })).benchmarks.interval!
  t.deepEqual(first.interval, again.interval)
  t.notDeepEqual(first.interval, other.interval)
  const [low, high] = first.interval.em
  t.true(low < first.em && first.em < high && low > 0.4 && high < 0.9)
  t.deepEqual(first.interval.format, [0.5, 0.5])
})

test('indices into choices name the golden answers of a multiple-choice question', async (t) => {
  const data = await dataFile('choices.jsonl', [
    { response: answer('B'), golden_answers: [1], choices: ['A', 'B'] },
    { response: answer('A'), golden_answers: [1], choices: ['A', 'B'] },
  ])
  t.is((await scoreFiles({ data: [data] })).benchmarks.choices!.em, 0.5)
})

test('missing answers are scored to the letter of FlashRAG', (t) => {
  t.like(scoreCompletion('no tags', ['x']), { prediction: '', em: 0, f1: 0, cover_em: 0 })
  t.like(scoreCompletion('no tags', ['The The']), { prediction: '', em: 1, f1: 0, cover_em: 1 })
  t.like(scoreCompletion(answer('x'), []), { prediction: 'x', em: 0, f1: 0, cover_em: 0 })
})

const badLines: [string, unknown][] = [
  ['that is not JSON', '{"response": '],
  ['that is not an object', '[1]'],
  ['without a completion', { golden_answers: ['x'] }],
  ['whose completion is not text', { response: 3, golden_answers: ['x'] }],
  ['without golden answers', { response: 'x' }],
  ['whose golden answers are not text', { response: 'x', golden_answers: [{}] }],
  ['whose golden answer is an index without choices', { response: 'x', golden_answers: [0] }],
]
for (const [title, line] of badLines) {
  test(`a line ${title} is ERR_DATASET with file and line, and nothing is written`, async (t) => {
    const data = await dataFile(`bad-${title}.jsonl`, [{ response: 'x', golden_answers: ['x'] }, line])
    const output = join(folder, `bad-${title}`)
    const error = await t.throwsAsync(() => scoreFiles({ data: [data], output }), { instanceOf: SsrlError })
    t.is(error.code, 'ERR_DATASET')
    t.true(error.message.includes(`${data}:2:`))
    t.deepEqual(await readdir(output), [])
  })
}

test('a file that is missing and a file without rows are ERR_DATASET', async (t) => {
  const empty = await dataFile('empty.jsonl', [])
  for (const path of [empty, join(folder, 'none.jsonl')]) {
    const error = await t.throwsAsync(() => scoreFiles({ data: [path] }), { instanceOf: SsrlError })
    t.is(error.code, 'ERR_DATASET')
  }
})

test('two files of one base name are ERR_INVALID_ARG', async (t) => {
  const error = await t.throwsAsync(() => scoreFiles({ data: ['a/x.jsonl', 'b/x.jsonl'] }), {
    instanceOf: SsrlError,
  })
  t.is(error.code, 'ERR_INVALID_ARG')
})

test('a folder that cannot be made is ERR_IO', async (t) => {
  const data = await dataFile('io.jsonl', [{ response: 'x', golden_answers: ['x'] }])
  const error = await t.throwsAsync(() => scoreFiles({ data: [data], output: join(data, 'x') }), {
    instanceOf: SsrlError,
  })
  t.is(error.code, 'ERR_IO')
})

test('an aborted signal rejects with its reason', async (t) => {
  const data = await dataFile('abort.jsonl', [{ response: 'x', golden_answers: ['x'] }])
  const reason = new Error('enough')
  const error = await t.throwsAsync(() => scoreFiles({ data: [data], signal: AbortSignal.abort(reason) }))
  t.is(error, reason)
})
