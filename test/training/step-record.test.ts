import test from 'ava'
import { summarizePasses, withoutTimes } from '../../lib/training/step-record.ts'

const pass = {
  loss: 0.1,
  policyLoss: 0.05,
  kl: 1,
  entropy: 2,
  clipLow: 0,
  clipHigh: 0.5,
  ratioMean: 1,
  ratioMax: 1.5,
  mismatch: 0,
  tokens: 10,
}

test('losses of micro-batches add up, means are weighted by their tokens', (t) => {
  const other = { ...pass, loss: 0.3, policyLoss: 0.2, kl: 3, clipHigh: 0, ratioMax: 1.2, tokens: 30 }
  const { loss, policyLoss, kl, clip, ratio } = summarizePasses([[pass, other]])
  t.is(loss, 0.4)
  t.is(policyLoss, 0.25)
  t.is(kl, 2.5)
  t.is(clip.high, 0.125)
  t.is(ratio.max, 1.5)
})

test('the loss is the mean over passes, the mismatch that of the first', (t) => {
  const second = { ...pass, loss: 0.3, mismatch: 0.7 }
  const { loss, mismatch } = summarizePasses([[{ ...pass, mismatch: 0.2 }], [second]])
  t.is(loss, 0.2)
  t.is(mismatch, 0.2)
})

test('no pass at all gives zeros, not NaN', (t) => {
  const summary = summarizePasses([])
  t.deepEqual(summary, {
    loss: 0,
    policyLoss: 0,
    kl: 0,
    entropy: 0,
    clip: { low: 0, high: 0 },
    ratio: { mean: 0, max: 0 },
    mismatch: 0,
  })
})

test('times, speeds and memory are what a repeated run cannot repeat', (t) => {
  t.deepEqual(withoutTimes({ step: 1, seconds: 2, tokensPerSecond: 3, memory: 4 }), { step: 1 } as never)
})
