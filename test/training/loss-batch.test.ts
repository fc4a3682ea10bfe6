import test from 'ava'
import { createTrajectory, type Trajectory } from '../../lib/rollout/trajectory.ts'
import { miniBatches, prepareSequences } from '../../lib/training/loss-batch.ts'

/** A trajectory whose tokens are the given pieces, after a prompt of two tokens. */
function trajectory(pieces: string[], finishReason: 'stop' | 'length' = 'stop'): Trajectory {
  const values = Float32Array.from(pieces, (_, index) => -index)
  return createTrajectory({
    questionId: 'q',
    question: 'q',
    goldenAnswers: ['a'],
    promptTokens: Int32Array.of(1, 2),
    completionTokens: Int32Array.from(pieces, (_, index) => index + 10),
    pieces,
    logProbs: values,
    entropies: values,
    finishReason,
  })
}

const searching = [
  '<search>',
  'x',
  '</search>',
  '<information>',
  'y',
  '</information>',
  '<answer>',
  'z',
  '</answer>',
]
const short = ['<answer>', 'z', '</answer>']

const settings = {
  informationMask: 'information',
  lossType: 'dapo',
  maskTruncatedCompletions: false,
  maxCompletionLength: 64,
} as const

test('prompt tokens and the information that answers a search are not trained', (t) => {
  const { sequences, activeTokens } = prepareSequences([trajectory(searching)], [1], settings)
  t.deepEqual(Array.from(sequences[0]!.lossMask), [0, 1, 1, 1, 0, 0, 0, 1, 1, 1])
  t.is(activeTokens, 6)
})

test("old log-probs are the sampler's, at the index of the token before", (t) => {
  const [sequence] = prepareSequences([trajectory(short)], [1], settings).sequences
  t.deepEqual(Array.from(sequence!.oldLogProbs), [0, -0, -1, -2])
})

test('denominators count the whole step: tokens, sequences, or sequences of full length', (t) => {
  const both = [trajectory(searching), trajectory(short)]
  const normalizer = (lossType: 'dapo' | 'bnpo' | 'grpo' | 'dr_grpo') =>
    prepareSequences(both, [1, -1], { ...settings, lossType }).normalizer
  t.is(normalizer('dapo'), 9)
  t.is(normalizer('bnpo'), 9)
  t.is(normalizer('grpo'), 2)
  t.is(normalizer('dr_grpo'), 128)
})

test('a weight for information counts in the token mean', (t) => {
  const mask = { ...settings, informationMask: { weight: 0.5 } }
  const { sequences, normalizer, activeTokens } = prepareSequences([trajectory(searching)], [1], mask)
  t.deepEqual(Array.from(sequences[0]!.lossWeights), [0, 1, 1, 1, 0.5, 0.5, 0.5, 1, 1, 1])
  t.is(normalizer, 7.5)
  t.is(activeTokens, 9)
})

test('a null reward and, where wanted, a cut-off completion are left out and not counted', (t) => {
  const all = [trajectory(short), trajectory(short, 'length'), trajectory(short)]
  t.is(prepareSequences(all, [1, -1, null], settings).sequences.length, 2)
  const masked = prepareSequences(all, [1, -1, null], { ...settings, maskTruncatedCompletions: true })
  t.is(masked.sequences.length, 1)
  t.is(masked.normalizer, 3)
})

test('a completion without any trained token is left out', (t) => {
  const only = trajectory(searching)
  only.source.fill(2, only.promptLength)
  const { sequences, activeTokens } = prepareSequences([only], [1], settings)
  t.deepEqual([sequences.length, activeTokens], [0, 0])
})

test('mini-batches have whole questions, as evenly as they go, each with a denominator of its own', (t) => {
  const trajectories = [0, 0, 1, 2, 2].map((group) => ({ ...trajectory(short), group }))
  const { sequences } = prepareSequences(trajectories, [1, 1, 1, 1, 1], settings)
  const cut = (numMiniBatches: number) =>
    miniBatches(sequences, { ...settings, numMiniBatches }).map(({ sequences, normalizer }) => [
      sequences.map(({ index }) => index),
      normalizer,
    ])
  t.deepEqual(cut(1), [[[0, 1, 2, 3, 4], 15]])
  t.deepEqual(cut(2), [
    [[0, 1, 2], 9],
    [[3, 4], 6],
  ])
  t.is(cut(5).length, 3, 'what has no question falls away')
})
