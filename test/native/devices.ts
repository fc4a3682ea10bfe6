/** The devices whose kernels this build can run; the tests of the kernels run on each. */
import { existsSync } from 'node:fs'
import test, { type ImplementationFn } from 'ava'
import { type KernelOptions, kernels } from '../../lib/kernels.ts'
import { loadEmulated } from '../../lib/native.ts'

export interface Device {
  name: 'cpu' | 'cuda-emulated' | 'cuda'
  kernels: typeof kernels
  /** ava's, with the device in the title. */
  test: (title: string, body: ImplementationFn<[]>) => void
  /** Ways to run the same work, which must give the same bits. The call that follows gets the options. */
  ways: (() => KernelOptions)[]
}

type AnyKernel = (args: never, options?: KernelOptions) => unknown

function on(device: 'cuda-emulated' | 'cuda'): typeof kernels {
  const bound = Object.entries(kernels).map(([name, kernel]) => [
    name,
    (args: never, options?: KernelOptions) => (kernel as AnyKernel)(args, { ...options, device }),
  ])
  return Object.fromEntries(bound)
}

let schedule = 0

export const emulated: Device = {
  name: 'cuda-emulated',
  kernels: on('cuda-emulated'),
  // One after another: the schedule and the number of multiprocessors are the process's. Each runs under another seed.
  test: (title, body) =>
    test.serial(`emulated CUDA: ${title}`, async (t) => {
      const { emulation } = loadEmulated()
      emulation.setSeed(schedule++ % 4)
      t.teardown(() => emulation.setSeed(0))
      await body(t)
    }),
  ways: [
    { seed: 0, multiprocessors: 132 },
    { seed: 1, multiprocessors: 1 },
    { seed: 2, multiprocessors: 6 },
  ].map(({ seed, multiprocessors }) => () => {
    loadEmulated().emulation.setSeed(seed)
    loadEmulated().emulation.setMultiprocessors(multiprocessors)
    return {}
  }),
}

/** The first GPU, for `npm run test:gpu`. */
const gpu: Device = {
  name: 'cuda',
  kernels: on('cuda'),
  test: (title, body) => test.serial(`CUDA: ${title}`, body),
  ways: [() => ({}), () => ({})],
}

export const hasEmulated = existsSync(
  new URL('../../build/Release/ssrl-emulated.node', import.meta.url).pathname,
)

if (!hasEmulated) {
  test.skip('emulated CUDA: not built (node scripts/build-cuda.mjs emulated says why)', () => {})
}

const cpu: Device = {
  name: 'cpu',
  kernels,
  test: (title, body) => test(title, body),
  ways: [1, 2, 3].map((threads) => () => ({ threads })),
}

export const devices: Device[] = process.env.SSRL_GPU === '1' ? [gpu] : hasEmulated ? [cpu, emulated] : [cpu]
