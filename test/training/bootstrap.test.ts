import test from 'ava'
import type { Question } from '../../lib/data/questions.ts'
import { formatScore } from '../../lib/rollout/format.ts'
import { parseCompletion } from '../../lib/rollout/grammar.ts'
import { bootstrapFromSamples, bootstrapFromTemplate, fewShotPrompt } from '../../lib/training/bootstrap.ts'
import { questions, tinyPolicy } from '../helpers/tiny-policy.ts'

const ask = (question: string, ...goldenAnswers: string[]): Question => ({
  id: question,
  question,
  goldenAnswers,
  fields: {},
})

test('a template demonstration has the strict format with one search, and the first golden answer', (t) => {
  const asked = Array.from({ length: 40 }, (_, index) =>
    ask(`Who painted picture number ${index}?`, `Painter ${index}`, 'x'),
  )
  const written = bootstrapFromTemplate(asked, { seed: 3 })
  t.is(written.length, 40)
  for (const [index, { completion, correct, source }] of written.entries()) {
    t.is(formatScore(completion), 1)
    t.is(parseCompletion(completion).answer, `Painter ${index}`)
    t.deepEqual([correct, source], [true, 'template'])
  }
  t.true(new Set(written.map(({ completion }) => completion.replaceAll(/\d+/g, ''))).size > 5)
  t.deepEqual(bootstrapFromTemplate(asked, { seed: 3 }), written)
})

test('questions that would break the grammar are left out', (t) => {
  const asked = [
    ask('What is 1 < 2?', 'true'),
    ask('Two\nlines?', 'x'),
    ask('Fine?', '<b>'),
    ask('No answer?'),
  ]
  t.deepEqual(bootstrapFromTemplate(asked), [])
})

test('worked examples come before the question, which stays untrusted', (t) => {
  const segments = fewShotPrompt([{ question: 'a?', completion: '<answer> b </answer>' }], ' c? ')
  t.is(segments.map(({ text }) => text).join(''), 'Question: a?\n<answer> b </answer>\n\nQuestion: c?\n')
  t.deepEqual(
    segments.filter(({ untrusted }) => untrusted).map(({ text }) => text),
    ['c?'],
  )
})

test('samples of a policy that knows no format give no demonstrations, and are counted', async (t) => {
  const policy = await tinyPolicy()
  t.teardown(() => policy.dispose())
  const { demonstrations, statistics } = await bootstrapFromSamples({
    policy,
    questions: questions(3),
    shots: [{ question: 'a?', completion: '<answer> b </answer>' }],
    n: 2,
    maxNewTokens: 8,
  })
  t.deepEqual(demonstrations, [])
  t.deepEqual(statistics, { questions: 3, samples: 6, wellFormed: 0, correct: 0, kept: 0 })
})
