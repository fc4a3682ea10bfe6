import test from 'ava'
import { createTrajectory } from '../../lib/rollout/trajectory.ts'
import { type AlarmSettings, Alarms, describeAnswers } from '../../lib/training/alarms.ts'
import type { StepRecord } from '../../lib/training/step-record.ts'

const off: AlarmSettings = {
  alarmWindow: 2,
  alarmFall: null,
  alarmEntropyMin: null,
  alarmEntropyMax: null,
  alarmZeroVariance: null,
  alarmRepetition: null,
  alarmLengthGrowth: null,
}

interface Figures {
  format?: number
  exactMatch?: number | null
  entropy?: number
  ratio?: number
  zeroVariance?: number
  repetition?: number | null
  length?: number
}

/** Feeds one step after another; gives the alarms of each, and all messages. */
function watch(
  settings: Partial<AlarmSettings>,
  steps: Figures[],
  alarms = new Alarms({ ...off, ...settings }),
) {
  const ringing: string[][] = []
  const messages: string[] = []
  for (const [index, step] of steps.entries()) {
    const record = {
      step: index + 1,
      format: { mean: step.format ?? 0.9 },
      exactMatch: { mean: step.exactMatch === undefined ? 0.5 : step.exactMatch },
      entropy: step.entropy ?? 1,
      ratio: { mean: 1, max: step.ratio ?? 1 },
      sampling: { rounds: 1, groups: 4, kept: 4 },
      zeroVarianceGroups: step.zeroVariance ?? 0,
      answers: { given: 1, repetition: step.repetition ?? null },
      length: { mean: step.length ?? 100 },
    } as unknown as StepRecord
    const result = alarms.check(record)
    ringing.push(result.ringing)
    messages.push(...result.begun)
  }
  return { ringing, messages, alarms }
}

test('a format score or exact match that falls by a share of its best mean rings, with step and figures', (t) => {
  const format = watch(
    { alarmFall: 0.5 },
    [0.9, 0.9, 0.5, 0.3, 0.2].map((format) => ({ format })),
  )
  t.deepEqual(format.ringing, [[], [], [], ['format'], ['format']])
  t.deepEqual(format.messages, [
    'step 4: over the last 2 steps the format score was 0.4, down from 0.9 at best',
  ])
  const exact = watch(
    { alarmFall: 0.5 },
    [0.4, 0.4, 0.1, 0.1].map((exactMatch) => ({ exactMatch })),
  )
  t.deepEqual(exact.ringing.at(-1), ['exactMatch'])
  t.deepEqual(watch({}, [{ format: 1 }, { format: 1 }, { format: 0 }, { format: 0 }]).messages, [])
})

test('what never was has nothing to fall from, and unknown answers do not ring', (t) => {
  const low = [0.04, 0.04, 0, 0].map((exactMatch) => ({ exactMatch }))
  t.deepEqual(watch({ alarmFall: 0.5 }, low).messages, [])
  const unknown = [null, null, null].map((exactMatch) => ({ exactMatch }))
  t.deepEqual(watch({ alarmFall: 0.5 }, unknown).messages, [])
})

test('entropy rings under one bound and over the other', (t) => {
  const bounds = { alarmEntropyMin: 0.1, alarmEntropyMax: 2 }
  const low = watch(
    bounds,
    [1, 0.3, 0.05, 0.05].map((entropy) => ({ entropy })),
  )
  t.deepEqual(low.ringing, [[], [], [], ['entropyLow']])
  t.regex(low.messages[0]!, /^step 4: .*entropy was 0.05, under the bound of 0.1$/)
  const high = watch(
    bounds,
    [1, 2, 3.5].map((entropy) => ({ entropy })),
  )
  t.deepEqual(high.ringing.at(-1), ['entropyHigh'])
  // Where nothing is learnt there is no entropy.
  t.deepEqual(
    watch(
      bounds,
      Array.from({ length: 3 }, () => ({ entropy: 0, ratio: 0 })),
    ).messages,
    [],
  )
})

test('equal rewards, one answer to all, and lengths that run away ring over their bounds', (t) => {
  const zero = watch(
    { alarmZeroVariance: 0.7 },
    [2, 3, 4].map((zeroVariance) => ({ zeroVariance })),
  )
  t.deepEqual(zero.ringing, [[], [], ['zeroVariance']])
  const repetition = watch(
    { alarmRepetition: 0.5 },
    [0.3, 0.6, 0.6].map((repetition) => ({ repetition })),
  )
  t.deepEqual(repetition.ringing, [[], [], ['repetition']])
  const length = watch(
    { alarmLengthGrowth: 2 },
    [90, 110, 150, 300].map((length) => ({ length })),
  )
  t.deepEqual(length.ringing, [[], [], [], ['length']])
  t.regex(length.messages[0]!, /2.25, over the bound of 2$/)
})

test('an alarm is told when it begins, and again after it has been quiet', (t) => {
  const entropies = [0.05, 0.05, 0.05, 1, 1, 0.05, 0.05].map((entropy) => ({ entropy }))
  const { messages } = watch({ alarmEntropyMin: 0.1 }, entropies)
  t.deepEqual(
    messages.map((message) => message.slice(0, 6)),
    ['step 2', 'step 7'],
  )
})

test('a resumed watch goes on where it was', (t) => {
  const settings = { alarmFall: 0.5 }
  const first = watch(settings, [{ format: 0.9 }, { format: 0.9 }])
  const again = new Alarms({ ...off, ...settings }, JSON.parse(JSON.stringify(first.alarms.state)))
  t.deepEqual(watch(settings, [{ format: 0.1 }, { format: 0.1 }], again).ringing, [[], ['format']])
})

test('repetition is the share of the commonest answer over all questions; of one question there is none', (t) => {
  const answering = (group: number, answer: string | null) =>
    createTrajectory({
      questionId: String(group),
      question: '',
      goldenAnswers: [],
      group,
      promptTokens: Int32Array.of(1),
      completionTokens: Int32Array.of(2),
      pieces: [answer === null ? 'x' : `<answer>${answer}</answer>`],
      logProbs: Float32Array.of(0),
      entropies: Float32Array.of(0),
      finishReason: 'stop',
    })
  const some = [answering(0, 'Paris'), answering(0, 'paris!'), answering(1, 'the Paris'), answering(1, null)]
  t.deepEqual(describeAnswers([...some, answering(2, 'Rome')]), { given: 0.8, repetition: 0.75 })
  t.deepEqual(describeAnswers(some.slice(0, 2)), { given: 1, repetition: null })
  t.deepEqual(describeAnswers([answering(0, null)]), { given: 0, repetition: null })
})
