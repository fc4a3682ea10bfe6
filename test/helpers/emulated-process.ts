/**
 * The process of a test file that imports this computes with the test build's addon, whose CUDA devices are emulated.
 * What it imports besides must not load an addon while it is imported.
 */
import { existsSync } from 'node:fs'
import test, { type ImplementationFn } from 'ava'
import { loadEmulated } from '../../lib/native.ts'
import { hasShared } from './shared.ts'

export const isEmulated = existsSync(
  new URL('../../build/Release/ssrl-emulated.node', import.meta.url).pathname,
)
/** `npm run test:gpu`: the same tests on the first GPU. */
export const isGpu = process.env.SSRL_GPU === '1'
if (isGpu) test.skip('emulated CUDA: left out, as there is a GPU', () => {})
else if (isEmulated) process.env.SSRL_EMULATED = '1'
else test.skip('emulated CUDA: not built (node scripts/build-cuda.mjs emulated says why)', () => {})

/** Serial, as the state of the devices is the process's; nothing where they are not built. */
export const testEmulated: (title: string, implementation: ImplementationFn<[]>) => void = (title, body) => {
  if (isEmulated && !isGpu) test.serial(`emulated CUDA: ${title}`, body)
}

/** Orders of warps and numbers of multiprocessors, which no bit may depend on; a GPU has its own. */
export const schedules: (() => void)[] = isGpu
  ? [() => {}]
  : [
      [0, 132],
      [1, 2],
    ].map(([seed, multiprocessors]) => () => {
      loadEmulated().emulation.setSeed(seed!)
      loadEmulated().emulation.setMultiprocessors(multiprocessors!)
    })

/** For tests that read `../shared`, and run on a GPU, too. */
export const testCudaWithShared: typeof testEmulated = (title, body) => {
  if (!hasShared) test.skip(`CUDA: ${title} (skipped: ../shared is missing)`, () => {})
  else if (isGpu) test.serial(`CUDA: ${title}`, body)
  else testEmulated(title, body)
}
