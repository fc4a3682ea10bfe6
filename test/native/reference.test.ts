import type { ExecutionContext } from 'ava'
import { kernels } from '../../lib/kernels.ts'
import type { DType } from '../../lib/native.ts'
import { Learner } from '../../lib/training/learner.ts'
import { computeTypes, loadNativePolicy, policyAround } from '../helpers/fixture-policy.ts'
import {
  concat,
  fixtureNames,
  flatten,
  largestDifference,
  largestError,
  largestMagnitude,
  lossTypes,
  Reference,
} from '../helpers/reference.ts'
import { testWithShared } from '../helpers/shared.ts'

async function open(t: ExecutionContext, name: string, dtype: DType = 'f32') {
  const reference = new Reference(name)
  const native = await loadNativePolicy(reference.folder, { dtype })
  const learner = new Learner(policyAround(native), { learningRate: 1e-3, weightDecay: 0.01 })
  t.teardown(() => {
    learner.dispose()
    native.dispose()
  })
  return { reference, native, learner }
}

for (const name of fixtureNames) {
  testWithShared(`${name}: logits match the reference within 1e-4`, async (t) => {
    const { reference, native } = await open(t, name)
    const vocabulary = reference.floats('logits').length / (4 * 96)
    for (const [s, tokens] of reference.sequences.entries()) {
      const expected = reference.row('logits', s, tokens.length * vocabulary)
      t.true(largestError(await native.logits(tokens), expected) < 1e-4)
    }
  })

  testWithShared(`${name}: log-probs and entropies match the reference within 1e-4`, async (t) => {
    const { reference, native } = await open(t, name)
    const { tokens, offsets } = flatten(reference.sequences)
    const scores = await native.score(tokens, offsets, 1, null)
    t.true(largestError(scores.logProbs, concat(reference.perToken('logprobs'))) < 1e-4)
    t.true(largestError(scores.entropies, concat(reference.perToken('entropy'))) < 1e-4)
  })

  for (const type of lossTypes) {
    testWithShared(`${name}: the ${type} loss matches the reference within 1e-5`, async (t) => {
      const { reference, learner } = await open(t, name)
      const { loss } = await learner.accumulate(reference.batch(type), reference.loss(type))
      t.true(Math.abs(loss - reference.floats(`loss.${type}`)[0]!) < 1e-5)
    })
  }

  for (const type of ['sft', 'grpo'] as const) {
    testWithShared(
      `${name}: every ${type} gradient is within 1e-4 of its tensor's largest value`,
      async (t) => {
        const { reference, native, learner } = await open(t, name)
        await learner.accumulate(reference.batch(type), reference.loss(type))
        const gradients = await learner.gradients()
        t.is(gradients.size, native.parameters().length)
        for (const [parameter, gradient] of gradients) {
          const expected = reference.floats(`grad.${type}.${parameter}`)
          const error = largestDifference(gradient, expected) / largestMagnitude(expected)
          t.true(error < 1e-4, `${parameter}: ${error}`)
        }
      },
    )
  }

  for (const type of ['grpo', 'bnpo', 'dr_grpo'] as const) {
    testWithShared(`${name}: the norm of the ${type} gradient matches the reference`, async (t) => {
      const { reference, learner } = await open(t, name)
      await learner.accumulate(reference.batch(type), reference.loss(type))
      const { gradNorm } = await learner.step()
      t.true(Math.abs(gradNorm / reference.floats(`gradnorm.${type}`)[0]! - 1) < 1e-5)
    })
  }

  testWithShared(`${name}: one AdamW step from the loss to the weights matches the reference`, async (t) => {
    const { reference, native, learner } = await open(t, name)
    await learner.accumulate(reference.batch('grpo'), reference.loss('grpo'))
    await learner.step()
    let compared = 0
    for (const { name: parameter } of native.parameters()) {
      const weights = await native.readParameter(parameter)
      const expected = reference.floats(`adamw.${parameter}`)
      const gradient = reference.floats(`grad.grpo.${parameter}`)
      const least = 1e-3 * largestMagnitude(gradient)
      // Adam's first step divides by |g|: where that is next to nothing, its direction is noise.
      const isClear = (i: number) => Math.abs(gradient[i]!) >= least
      for (let i = 0; i < weights.length; i++) {
        const difference = Math.abs(weights[i]! - expected[i]!)
        if (!(difference < (isClear(i) ? 1e-6 : 2e-3))) t.fail(`${parameter}[${i}]: ${difference}`)
        if (isClear(i)) compared++
      }
    }
    t.true(compared > 1000)
  })

  testWithShared(`${name}: AdamW alone, on the reference gradients, matches within 1e-7`, async (t) => {
    const { reference, native } = await open(t, name)
    const scale = Math.min(1, 1 / (reference.floats('gradnorm.grpo')[0]! + 1e-6))
    for (const { name: parameter } of native.parameters()) {
      const gradient = reference.floats(`grad.grpo.${parameter}`)
      const { weight } = await kernels.adamw({
        weight: await native.readParameter(parameter),
        gradient,
        firstMoment: new Float32Array(gradient.length),
        secondMoment: new Float32Array(gradient.length),
        learningRate: 1e-3,
        weightDecay: 0.01,
        step: 1,
        gradientScale: scale,
      })
      const expected = reference.floats(`adamw.${parameter}`)
      t.true(
        largestDifference(weight, expected) < 1e-7,
        `${parameter}: ${largestDifference(weight, expected)}`,
      )
    }
  })

  // Seen: logits 0.06, log-probs 0.043, entropies 0.040, losses 0.0015, sft gradients 0.027 of the largest value.
  if (!computeTypes.includes('bf16')) continue
  testWithShared(`${name}: bf16 stays near f32`, async (t) => {
    const { reference, native, learner } = await open(t, name, 'bf16')
    const { tokens, offsets } = flatten(reference.sequences)
    const scores = await native.score(tokens, offsets, 1, null)
    t.true(largestDifference(scores.logProbs, concat(reference.perToken('logprobs'))) < 0.06)
    t.true(largestDifference(scores.entropies, concat(reference.perToken('entropy'))) < 0.06)
    const { loss } = await learner.accumulate(reference.batch('sft'), reference.loss('sft'))
    t.true(Math.abs(loss - reference.floats('loss.sft')[0]!) < 3e-3)
    for (const [parameter, gradient] of await learner.gradients()) {
      const expected = reference.floats(`grad.sft.${parameter}`)
      t.true(largestDifference(gradient, expected) < 0.04 * largestMagnitude(expected), parameter)
    }
  })
}
