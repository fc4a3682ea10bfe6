import test from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { createTrajectory, type TrajectoryInput, trajectoryRecord } from '../../lib/rollout/trajectory.ts'

const input: TrajectoryInput = {
  questionId: 'q7',
  question: 'Who?',
  goldenAnswers: ['Ann'],
  group: 3,
  sampleIndex: 1,
  promptTokens: Int32Array.of(5, 6),
  completionTokens: Int32Array.of(7, 8, 9),
  pieces: ['<think>t</think>', '<answer> An', 'n </answer>'],
  logProbs: Float32Array.of(-0.5, -1, -2),
  entropies: Float32Array.of(1, 2, 3),
  finishReason: 'stop',
}

test('a trajectory joins prompt and completion as sampled', (t) => {
  const trajectory = createTrajectory(input)
  t.deepEqual([...trajectory.tokens], [5, 6, 7, 8, 9])
  t.is(trajectory.promptLength, 2)
  t.deepEqual([...trajectory.source], [0, 0, 1, 1, 1])
})

test('per-token statistics have T - 1 values: index t belongs to token t + 1', (t) => {
  const trajectory = createTrajectory(input)
  t.deepEqual([...trajectory.logProbs], [0, -0.5, -1, -2])
  t.deepEqual([...trajectory.entropies], [0, 1, 2, 3])
})

test('what the policy did not sample has no log-prob', (t) => {
  const trajectory = createTrajectory({ ...input, source: Uint8Array.of(1, 2, 1) })
  t.deepEqual([...trajectory.logProbs], [0, -0.5, 0, -2])
  t.deepEqual([...trajectory.source], [0, 0, 1, 2, 1])
})

test('prediction, format and spans come from the completion alone', (t) => {
  const trajectory = createTrajectory(input)
  t.is(trajectory.prediction, 'Ann')
  t.is(trajectory.format, 0.5)
  t.is(trajectory.text, '<think>t</think><answer> Ann </answer>')
  t.deepEqual(
    trajectory.spans.map(({ kind, tokenStart, tokenEnd }) => [kind, tokenStart, tokenEnd]),
    [
      ['think', 0, 1],
      ['answer', 1, 3],
    ],
  )
})

test('an empty completion is a trajectory without prediction', (t) => {
  const empty = {
    pieces: [],
    completionTokens: new Int32Array(),
    logProbs: new Float32Array(),
    entropies: new Float32Array(),
  }
  const trajectory = createTrajectory({ ...input, ...empty, finishReason: 'length' })
  t.is(trajectory.prediction, null)
  t.is(trajectory.format, 0)
  t.deepEqual([...trajectory.logProbs], [0])
})

for (const name of ['pieces', 'logProbs', 'entropies', 'source'] as const) {
  test(`${name} of another length than the completion is ERR_INVALID_ARG`, (t) => {
    const short = {
      pieces: ['x'],
      logProbs: new Float32Array(1),
      entropies: new Float32Array(4),
      source: new Uint8Array(2),
    }
    const error = t.throws(() => createTrajectory({ ...input, [name]: short[name] }), {
      instanceOf: SsrlError,
    })
    t.is(error.code, 'ERR_INVALID_ARG')
    t.true(error.message.includes(name))
  })
}

test('an empty prompt is ERR_INVALID_ARG', (t) => {
  const error = t.throws(() => createTrajectory({ ...input, promptTokens: new Int32Array() }), {
    instanceOf: SsrlError,
  })
  t.is(error.code, 'ERR_INVALID_ARG')
})

test('the record of a trajectory has what scoring and fine-tuning read', (t) => {
  t.deepEqual(trajectoryRecord(createTrajectory(input)), {
    id: 'q7',
    question: 'Who?',
    golden_answers: ['Ann'],
    response: '<think>t</think><answer> Ann </answer>',
    prediction: 'Ann',
    format: 0.5,
    finish_reason: 'stop',
    searches: 0,
    tokens: 3,
    group: 3,
    sample: 1,
  })
})
