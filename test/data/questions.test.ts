import test from 'ava'
import {
  loadQuestions,
  loadQuestionsWithReport,
  nameOfDataset,
  type QuestionReport,
} from '../../lib/data/questions.ts'
import { SsrlError } from '../../lib/errors.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'
import { temporaryFolder } from './temporary.ts'

const { path, write } = temporaryFolder(test)

async function errorOf(t: { throwsAsync: typeof test.prototype.throwsAsync }, call: () => Promise<unknown>) {
  return (await t.throwsAsync(call, { instanceOf: SsrlError })) as SsrlError
}

test('a flat JSONL file gives its questions in order, with all fields of the row', async (t) => {
  const row = { id: 'a', question: ' Who? ', golden_answers: ['x', 'y'], category: 'c' }
  const file = await write('flat.jsonl', [row, '', { id: 7, question: 'What?', golden_answers: ['z'] }])
  t.deepEqual(await loadQuestions(file), [
    { id: 'a', question: 'Who?', goldenAnswers: ['x', 'y'], fields: row },
    {
      id: '7',
      question: 'What?',
      goldenAnswers: ['z'],
      fields: { id: 7, question: 'What?', golden_answers: ['z'] },
    },
  ])
})

test('a row without id is named by file and line', async (t) => {
  const file = await write('named.jsonl', ['', { question: 'Who?', answer: 'x' }])
  t.is((await loadQuestions(file))[0]!.id, 'named:2')
})

test('duplicates, empty questions, missing and blank answers are reported with their lines', async (t) => {
  const file = await write('odd.jsonl', [
    { id: '1', question: 'Who?', answer: 'x' },
    { id: '2', question: ' ', answer: 'x' },
    { id: '3', answer: 'x' },
    { id: '4', question: null, answer: 'x' },
    { id: '5', question: 'Where?' },
    { id: '6', question: 'Why?', golden_answers: [] },
    { id: '6', question: 'Whence?', answer: ' ' },
    { id: '7', question: 'Who?', answer: 'y' },
    { id: '1', question: 'How?', golden_answers: ['The The', 'x'] },
  ])
  const { questions, report } = await loadQuestionsWithReport(file)
  t.deepEqual(
    questions.map(({ id, question }) => [id, question]),
    [
      ['1', 'Who?'],
      ['7', 'Who?'],
      ['1', 'How?'],
    ],
  )
  t.deepEqual(
    report.issues.map(({ line, kind, dropped }) => [line, kind, dropped]),
    [
      [2, 'empty-question', true],
      [3, 'empty-question', true],
      [4, 'empty-question', true],
      [5, 'missing-answers', true],
      [6, 'missing-answers', true],
      [7, 'missing-answers', true],
      [8, 'duplicate-question', false],
      [9, 'blank-answer', false],
      [9, 'duplicate-id', false],
    ],
  )
  t.is(report.issues[6]!.message, '"Who?" stands in line 1 already')
  t.deepEqual([report.path, report.rows, report.kept], [file, 9, 3])
  t.deepEqual(report.counts, {
    'empty-question': 3,
    'missing-answers': 3,
    'blank-answer': 1,
    'duplicate-question': 1,
    'duplicate-id': 1,
  })
})

test('loadQuestions hands the report to onReport once', async (t) => {
  const file = await write('reported.jsonl', [{ question: 'Who?', answer: '!!!' }])
  const reports: QuestionReport[] = []
  await loadQuestions(file, { onReport: (report) => reports.push(report) })
  t.deepEqual(
    reports.map((report) => report.counts['blank-answer']),
    [1],
  )
})

test('with optional answers a question without any is kept, and reported', async (t) => {
  const file = await write('optional.jsonl', [{ question: 'Who?' }])
  const { questions, report } = await loadQuestionsWithReport(file, { answers: 'optional' })
  t.deepEqual(questions[0]!.goldenAnswers, [])
  t.deepEqual([report.issues[0]!.kind, report.issues[0]!.dropped], ['missing-answers', false])
})

const badLines: [string, unknown, RegExp][] = [
  ['is not JSON', '{"question": "Who?"', /one JSON value/],
  ['is not an object', '["Who?"]', /an object.*a list of 1/],
  ['has a question that is no text', { question: 3, answer: 'x' }, /question to be text.*a number/],
  ['has answers that are no texts', { question: 'x', answer: { wrong: 1 } }, /answer.*an object/],
  [
    'has an answer in its list that is no text',
    { question: 'x', golden_answers: ['a', null] },
    /\[1\].*null/,
  ],
  ['has a prompt without a user', { prompt: [{ role: 'system', content: 'x' }], answer: 'x' }, /user/],
]
for (const [title, line, message] of badLines) {
  test(`a line that ${title} is ERR_DATASET with file and line`, async (t) => {
    const file = await write(`bad ${title}.jsonl`, [{ question: 'ok', answer: 'x' }, '', line])
    const error = await errorOf(t, () => loadQuestions(file))
    t.is(error.code, 'ERR_DATASET')
    t.true(error.message.startsWith(`${file}:3: `), error.message)
    t.regex(error.message, message)
  })
}

test('bytes that are not UTF-8 are ERR_DATASET with file and line', async (t) => {
  const file = await write('bytes.jsonl', Buffer.concat([Buffer.from('{}\n"'), Buffer.of(0xff, 0xfe)]))
  const error = await errorOf(t, () => loadQuestions(file, { answers: 'optional' }))
  t.regex(error.message, /:2: expected UTF-8/)
})

test('a byte order mark, CRLF and raw U+2028 inside a text are read', async (t) => {
  const file = await write('marks.jsonl', [
    '\ufeff{"question":"Who\u2028?","answer":"x"}\r\n{"question":"y","answer":"z"}\r',
  ])
  t.deepEqual(
    (await loadQuestions(file)).map(({ question }) => question),
    ['Who\u2028?', 'y'],
  )
})

for (const [title, rows] of [
  ['an empty file', []],
  ['a file whose rows have other fields', [{ text: 'x' }]],
] as const) {
  test(`${title} is ERR_DATASET and says which fields are looked for`, async (t) => {
    const file = await write(`${title}.jsonl`, [...rows])
    const error = await errorOf(t, () => loadQuestions(file))
    t.is(error.code, 'ERR_DATASET')
    t.regex(error.message, /golden_answers/)
  })
}

test('a file that is missing, a folder, and a broken parquet file are ERR_DATASET', async (t) => {
  const broken = await write('broken.parquet', Buffer.from('PAR1 and then nothing'))
  for (const file of [path('none.jsonl'), path('.'), broken]) {
    const error = await errorOf(t, () => loadQuestions(file))
    t.is(error.code, 'ERR_DATASET')
    t.true(error.message.includes(file))
  }
})

test('an unknown value of the answers option is ERR_INVALID_ARG', async (t) => {
  const error = await errorOf(t, () => loadQuestions('x', { answers: 'maybe' as 'optional' }))
  t.is(error.code, 'ERR_INVALID_ARG')
})

test('an aborted signal rejects with its reason', async (t) => {
  const file = await write('abort.jsonl', [{ question: 'Who?', answer: 'x' }])
  const reason = new Error('enough')
  t.is(await t.throwsAsync(() => loadQuestions(file, { signal: AbortSignal.abort(reason) })), reason)
})

test('a data set is named by its file', (t) => {
  t.deepEqual(['a/b.test.jsonl', 'x.parquet', 'y.txt', 'z'].map(nameOfDataset), ['b.test', 'x', 'y.txt', 'z'])
})

for (const [file, rows, first] of [
  ['nq-open.dev.jsonl', 3610, 'when was the last time anyone was on the moon'],
  ['opentriviaqa.train.jsonl', 19873, 'What is the predominant religion in Argentina?'],
  ['musique.dev.jsonl', 2417, 'Who is the spouse of the Green performer?'],
] as const) {
  testWithShared(`${file} loads with all its ${rows} questions`, async (t) => {
    const { questions, report } = await loadQuestionsWithReport(sharedPath('data', file))
    t.deepEqual([report.rows, report.kept, questions[0]!.question], [rows, rows, first])
  })
}

for (const [file, rows, question, answer] of [
  [
    'verl-bamboogle.test.parquet',
    125,
    'Who was president of the United States in the year that Citibank was founded?',
    'james madison',
  ],
  ['verl-hotpotqa.test.parquet', 7405, 'Were Scott Derrickson and Ed Wood of the same nationality?', 'yes'],
] as const) {
  testWithShared(`${file}, in the layout of verl, loads with all its ${rows} questions`, async (t) => {
    const { questions, report } = await loadQuestionsWithReport(sharedPath('data', file))
    t.deepEqual([report.rows, report.kept], [rows, rows])
    t.like(questions[0], { id: `${file.replace('.parquet', '')}:1`, question, goldenAnswers: [answer] })
    t.notThrows(() => JSON.stringify(questions))
  })
}

testWithShared('the parquet and the JSONL of one set have the same questions and answers', async (t) => {
  const jsonl = await loadQuestions(sharedPath('data', 'bamboogle.test.jsonl'))
  const parquet = await loadQuestions(sharedPath('data', 'verl-bamboogle.test.parquet'))
  const pairs = (list: typeof jsonl) => list.map(({ question, goldenAnswers }) => [question, goldenAnswers])
  t.deepEqual(pairs(parquet), pairs(jsonl))
})
