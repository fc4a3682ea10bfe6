import test from 'ava'
import { type ExampleReport, loadExamples } from '../../lib/data/examples.ts'
import { SsrlError } from '../../lib/errors.ts'
import { temporaryFolder } from './temporary.ts'

const { write } = temporaryFolder(test)
const turn = (role: string, content: string) => ({ role, content })

test('each of the four layouts is told apart by its fields', async (t) => {
  const file = await write('layouts.jsonl', [
    { prompt: 'p', completion: 'c' },
    { prompt: [turn('user', 'p')], completion: [turn('assistant', 'c')] },
    { messages: [turn('user', 'p'), turn('assistant', 'c')] },
    { question: 'q', completion: 'c' },
    { question: 'q', response: 'c', golden_answers: ['x'] },
    { question: 'q', text: 'c', prediction: 'x' },
    { text: 't' },
  ])
  t.deepEqual(await loadExamples(file), [
    { kind: 'completion', line: 1, prompt: 'p', completion: 'c' },
    { kind: 'completion', line: 2, prompt: [turn('user', 'p')], completion: 'c' },
    { kind: 'messages', line: 3, messages: [turn('user', 'p'), turn('assistant', 'c')] },
    { kind: 'question', line: 4, question: 'q', completion: 'c' },
    { kind: 'question', line: 5, question: 'q', completion: 'c' },
    { kind: 'question', line: 6, question: 'q', completion: 'c' },
    { kind: 'text', line: 7, text: 't' },
  ])
})

test('rows with nothing to train on are left out and reported', async (t) => {
  const file = await write('empty.jsonl', [
    { prompt: 'p', completion: ' ' },
    { messages: [turn('user', 'p')] },
    { text: '' },
    { prompt: '', completion: 'c' },
  ])
  const reports: ExampleReport[] = []
  const examples = await loadExamples(file, { onReport: (report) => reports.push(report) })
  t.deepEqual(
    examples.map(({ line }) => line),
    [4],
  )
  t.deepEqual(reports, [{ path: file, rows: 4, kept: 1, empty: [1, 2, 3] }])
})

const bad: [string, unknown, RegExp][] = [
  ['of no layout', { input: 'x', output: 'y' }, /received input, output/],
  ['with no field', {}, /received none/],
  ['with a completion that is no text', { prompt: 'p', completion: 3 }, /completion to be a list.*a number/],
  [
    'with a completion of two messages',
    { prompt: 'p', completion: [turn('assistant', 'a'), turn('user', 'b')] },
    /2 messages/,
  ],
  ['with messages that are no list', { messages: 'x' }, /messages to be a list.*a string/],
  ['with an empty list of messages', { messages: [] }, /a list of 0/],
  ['with a message without content', { messages: [{ role: 'user' }] }, /messages\[0\]/],
  ['with a null message', { messages: [null] }, /messages\[0\]/],
  ['with a text that is no text', { text: ['x'] }, /text to be text/],
  ['that is not JSON', '{', /one JSON value/],
]
for (const [title, row, message] of bad) {
  test(`a row ${title} is ERR_DATASET with file and line`, async (t) => {
    const file = await write(`bad ${title}.jsonl`, [{ text: 'ok' }, row])
    const error = await t.throwsAsync(() => loadExamples(file), { instanceOf: SsrlError })
    t.is(error.code, 'ERR_DATASET')
    t.true(error.message.startsWith(`${file}:2: `), error.message)
    t.regex(error.message, message)
  })
}

test('a file without anything to train on is ERR_DATASET', async (t) => {
  const file = await write('nothing.jsonl', [{ text: ' ' }])
  t.is((await t.throwsAsync(() => loadExamples(file), { instanceOf: SsrlError })).code, 'ERR_DATASET')
})
