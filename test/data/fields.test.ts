import test from 'ava'
import { readAnswers, readQuestion } from '../../lib/data/fields.ts'

const INSTRUCTION =
  'Answer the given question. Reason inside <think> and </think>. For example, <answer> Beijing </answer>. Question: '

const questions: [string, Record<string, unknown>, string][] = [
  ['question', { question: ' Who? ', prompt: 'other' }, 'Who?'],
  ['query', { query: 'Who?' }, 'Who?'],
  ['problem', { problem: 'Who?' }, 'Who?'],
  ['extra_info.question before the prompt', { extra_info: { question: 'Who?' }, prompt: 'other' }, 'Who?'],
  ['a bare prompt', { prompt: 'Who?' }, 'Who?'],
  ['a chat prompt with the bare question', { prompt: [{ role: 'user', content: 'Who?' }] }, 'Who?'],
  [
    "the last user's turn of a chat prompt",
    {
      prompt: [
        { role: 'system', content: 's' },
        { role: 'user', content: 'Who?' },
      ],
    },
    'Who?',
  ],
  [
    'the end of an instruction in a chat prompt',
    { prompt: [{ role: 'user', content: `${INSTRUCTION}Who is he?\n` }] },
    'Who is he?',
  ],
  ['the end of an instruction in a text prompt', { prompt: `Some lines.\nQuestion: Who?` }, 'Who?'],
  [
    'a question that speaks of a Question: itself',
    { prompt: 'What did "The Question: Why" ask?' },
    'What did "The Question: Why" ask?',
  ],
  ['no field at all', { text: 'x' }, ''],
  ['null', { question: null, query: 'Who?' }, 'Who?'],
  ['an empty chat prompt', { prompt: [] }, ''],
]
for (const [title, fields, expected] of questions) {
  test(`the question is found in ${title}`, (t) => t.is(readQuestion(fields, 'f:1'), expected))
}

const answers: [string, Record<string, unknown>, string[]][] = [
  ['golden_answers', { golden_answers: ['x', 'y'], answer: 'z' }, ['x', 'y']],
  ['goldenAnswers', { goldenAnswers: ['x'] }, ['x']],
  ['answers', { answers: ['x'] }, ['x']],
  ['answer', { answer: 'x' }, ['x']],
  ['a number', { answer: 42 }, ['42']],
  ['ground_truth', { ground_truth: 'x' }, ['x']],
  ['target', { target: ['x'] }, ['x']],
  [
    'reward_model.ground_truth as text',
    { reward_model: { ground_truth: 'x' }, extra_info: { answer: 'y' } },
    ['x'],
  ],
  ['reward_model.ground_truth as list', { reward_model: { ground_truth: ['x', 'y'] } }, ['x', 'y']],
  [
    'reward_model.ground_truth.target as list',
    { reward_model: { ground_truth: { target: ['x', 'y'] } } },
    ['x', 'y'],
  ],
  ['reward_model.ground_truth.target as text', { reward_model: { ground_truth: { target: 'x' } } }, ['x']],
  ['extra_info.answer', { extra_info: { answer: 'x' } }, ['x']],
  ['answers.text', { answers: { text: ['x', 'x', 'y'], answer_start: [1, 2, 3] } }, ['x', 'y']],
  ['answer.value and its aliases', { answer: { value: 'x', aliases: ['x', 'y'] } }, ['x', 'y']],
  ['no field at all', { question: 'x' }, []],
  ['null', { golden_answers: null, answer: 'x' }, ['x']],
]
for (const [title, fields, expected] of answers) {
  test(`the answers are found in ${title}`, (t) => t.deepEqual(readAnswers(fields, 'f:1'), expected))
}
