import test from 'ava'
import { learningRateAt, type ScheduleSettings } from '../../lib/training/schedule.ts'

const constant: ScheduleSettings = {
  learningRate: 0.1,
  maxSteps: 100,
  schedule: 'constant',
  scheduleFloor: 0,
  scheduleHold: 0,
  warmupSteps: 0,
  warmupRatio: 0,
}

test('warm-up rises linearly and reaches the full rate at its last step', (t) => {
  const settings = { ...constant, warmupSteps: 4 }
  const rates = [1, 2, 4, 5, 100].map((step) => learningRateAt(step, settings))
  t.deepEqual(rates, [0.025, 0.05, 0.1, 0.1, 0.1])
})

test('a warm-up ratio is a share of all steps, rounded up', (t) => {
  t.is(learningRateAt(1, { ...constant, maxSteps: 150, warmupRatio: 0.02 }), 0.1 / 3)
})

test('linear falls to the floor at the last step', (t) => {
  const settings = { ...constant, schedule: 'linear', scheduleFloor: 0.1 } as const
  t.is(learningRateAt(100, settings), 0.1 * 0.1)
  t.is(learningRateAt(50, settings), 0.1 * (0.1 + 0.9 * 0.5))
})

test('linear holds the full rate as long as it is told to', (t) => {
  const settings = { ...constant, schedule: 'linear', scheduleHold: 0.7 } as const
  t.is(learningRateAt(70, settings), 0.1)
  t.is(learningRateAt(85, settings), 0.1 * 0.5)
  t.is(learningRateAt(100, settings), 0)
})

test('cosine is half way down in the middle', (t) => {
  const rate = learningRateAt(50, { ...constant, schedule: 'cosine' })
  t.true(Math.abs(rate - 0.05) < 1e-15)
})
