/**
 * Mistakes that are made on purpose in the CUDA sources, and must be noticed by the tests of the emulated device. Eight
 * of them here; `npm run test:mutations` makes them all.
 */
import test from 'ava'
import { mutants } from '../mutations/all.ts'
import { assertApplies, Workshop } from '../mutations/workshop.ts'
import { hasEmulated } from './devices.ts'

const chosen = [
  'matmul, few rows: one copy too many may be under way',
  'norm backward: lanes are not added up',
  'embedding backward: every token of an id adds its segment',
  'adamw: gradients are not clipped',
  'attention: values are not rescaled',
  'dK: no mask',
  'loss: the gradient of the target has the wrong sign',
  'sampling: no barrier after a bin is chosen',
].map((name) => mutants.find((mutant) => mutant.name === name)!)

test('every mutant has a name of its own, and replaces a text that occurs once', (t) => {
  t.is(new Set(mutants.map(({ name }) => name)).size, mutants.length)
  for (const mutant of mutants) t.notThrows(() => assertApplies(mutant))
})

if (hasEmulated && process.env.SSRL_GPU !== '1') {
  let workshop: Workshop
  test.before(() => {
    workshop = new Workshop()
  })
  test.after.always(() => workshop[Symbol.dispose]())

  test.serial('unchanged sources, compiled as mutants are, pass', async (t) => {
    const checks = [{ file: 'row-wise', titles: ['emulated CUDA: rmsNorm f32 *'] }]
    t.deepEqual(await workshop.control(['cuda/norm.cu'], checks), { outcome: 'survived', sign: '', by: '' })
  })

  for (const mutant of chosen) {
    test.serial(`a mistake is noticed: ${mutant.name}`, async (t) => {
      const { outcome, by } = await workshop.try(mutant)
      t.is(outcome, 'caught', by)
    })
  }
}
