import test from 'ava'
import { SsrlError } from '../../lib/errors.ts'
import { defaultOf, settingNames } from '../../lib/training/config.ts'
import { differences, parseConfig } from '../../lib/training/config-parse.ts'

function refusal(input: object, trainer: 'ssrl' | 'sft' = 'ssrl'): string {
  try {
    parseConfig(input as never, trainer)
  } catch (error) {
    if (error instanceof SsrlError && error.code === 'ERR_INVALID_CONFIG') return error.message
    throw error
  }
  return 'accepted'
}

test('without settings every default of the table holds', (t) => {
  for (const trainer of ['ssrl', 'sft'] as const) {
    const config = parseConfig({}, trainer)
    for (const name of settingNames(trainer)) t.deepEqual(config[name], defaultOf(name, trainer) as never)
  }
})

const gae = { estimator: 'gae' }
const searched = { searchSchedule: 'real' }
const simulated = { ...searched, searchProvider: 'policy:x' }

/** What a setting needs beside it to be accepted. */
const neededBy: Record<string, object | undefined> = {
  packedLength: { packing: true },
  maxGenerationBatches: { dynamicSampling: true },
  critic: gae,
  gamma: gae,
  gaeLambda: gae,
  criticLearningRate: gae,
  criticWarmupSteps: gae,
  valueClip: gae,
  valueCoefficient: { ...gae, critic: 'shared' },
  klCovCoefficient: { klCovRatio: 2e-4, numIterations: 2 },
  searchProvider: searched,
  realSearches: { searchSchedule: 'first' },
  realShareStart: { searchSchedule: 'curriculum' },
  realShareEnd: { searchSchedule: 'curriculum' },
  maxSearches: searched,
  searchTopK: searched,
  maxDocumentTokens: searched,
  documentLayout: searched,
  searchFailure: searched,
  searchTimeout: searched,
  searchAttempts: searched,
  searchConcurrency: searched,
  searchCache: searched,
  searchCacheMode: { ...searched, searchCache: 'x' },
  noiseStart: simulated,
  noiseEnd: simulated,
  leakAnswer: simulated,
}

test('every default passes its own check', (t) => {
  for (const trainer of ['ssrl', 'sft'] as const) {
    for (const name of settingNames(trainer)) {
      const needed = neededBy[name]
      t.notThrows(() => parseConfig({ [name]: defaultOf(name, trainer), ...needed } as never, trainer), name)
    }
  }
})

test('an unknown setting is refused with the nearest known one', (t) => {
  t.regex(refusal({ numGeneration: 8 }), /"numGeneration" is not known.*"numGenerations"/)
  t.regex(refusal({ learning_rate: 1 }), /"learningRate"/)
})

test('a setting of the other trainer is refused as such', (t) => {
  t.regex(refusal({ packing: true }), /"packing" is a setting of SFTTrainer only/)
  t.regex(refusal({ numGenerations: 4 }, 'sft'), /"numGenerations" is a setting of SSRLTrainer only/)
})

const wrong: [string, object, RegExp][] = [
  [
    'a text for a number',
    { learningRate: '1e-6' },
    /Expected a number above 0 for learningRate but received "1e-6" of type string/,
  ],
  ['NaN', { learningRate: Number.NaN }, /learningRate but received NaN/],
  ['infinity', { beta: Number.POSITIVE_INFINITY }, /beta but received Infinity/],
  [
    'a fraction for a count',
    { maxSteps: 1.5 },
    /Expected an integer of at least 1 for maxSteps but received 1.5/,
  ],
  ['a group of one', { numGenerations: 1 }, /numGenerations of at least 2 with estimator "grpo"/],
  ['a group of one, for rloo', { numGenerations: 1, estimator: 'rloo' }, /at least 2 with estimator "rloo"/],
  [
    'a scale that rloo has not',
    { estimator: 'rloo', scaleRewards: 'batch' },
    /scaleRewards needs estimator 'grpo'/,
  ],
  [
    'more mini-batches than questions',
    { promptsPerStep: 2, numMiniBatches: 3 },
    /at most promptsPerStep \(2\)/,
  ],
  [
    'an unknown choice',
    { lossType: 'ppo' },
    /Expected one of dapo, bnpo, grpo, dr_grpo for lossType but received "ppo"/,
  ],
  ['null where there is no null', { maxSteps: null }, /maxSteps but received null/],
  ['greedy sampling', { temperature: 0 }, /above 0 for temperature/],
  ['a negative temperature', { temperature: -1 }, /temperature/],
  ['top-p 0', { topP: 0 }, /topP/],
  ['truncated sampling by top-p', { topP: 0.9 }, /topP to be 1 in training but received 0.9/],
  ['truncated sampling by top-k', { topK: 40 }, /topK to be 0/],
  ['truncated sampling by min-p', { minP: 0.1 }, /minP to be 0/],
  ['two warm-ups', { warmupSteps: 2, warmupRatio: 0.1 }, /both/],
  ['a warm-up beyond the end', { warmupSteps: 20, maxSteps: 10 }, /at most maxSteps \(10\)/],
  ['a floor without a fall', { scheduleFloor: 0.1 }, /need schedule/],
  ['greedy samples, several', { evaluationSamples: 4 }, /evaluationTemperature above 0/],
  ['a dual clip inside the clip range', { dualClip: 1.1 }, /dualClip above 1 \+ epsilonHigh/],
  ['an unknown mask', { informationMask: 'some' }, /informationMask/],
  ['a mask with a field too many', { informationMask: { weight: 1, other: 2 } }, /informationMask/],
]

test('an estimator that looks at the batch alone needs no group', (t) => {
  t.is(refusal({ numGenerations: 1, estimator: 'reinforce_plus_plus' }), 'accepted')
})

for (const [title, input, message] of wrong) {
  test(`refused: ${title}`, (t) => t.regex(refusal(input), message))
}

test('a packed length without packing is refused', (t) => {
  t.regex(refusal({ packedLength: 64 }, 'sft'), /needs packing/)
})

test('differences name each changed setting, free ones aside', (t) => {
  const stored = parseConfig({ learningRate: 1e-5 }, 'ssrl')
  t.deepEqual(differences(stored, { learningRate: 1e-5, keep: 9, outputDirectory: 'x' }), [])
  t.deepEqual(differences(stored, { learningRate: 2e-5 }), [
    'learningRate (checkpoint: 0.00001, now: 0.00002)',
  ])
})
