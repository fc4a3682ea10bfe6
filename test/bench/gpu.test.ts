import test from 'ava'
import { execa } from 'execa'
import { cardOf, gpuKernels, measureKernel } from '../../bench/gpu-kernels.ts'
import { loadNative } from '../../lib/native.ts'
import { firstUsable } from '../../lib/policy/device.ts'

const hasGpu = firstUsable(loadNative().cuda()) !== null

test('every kernel of the GPU benchmark takes its arguments', async (t) => {
  const card = { name: /./, bandwidth: 1e12, flops: 1e14 }
  for (const work of gpuKernels(1 / 512)) {
    const { median, share } = await measureKernel(work, 'cpu', card, 2)
    t.true(median > 0, work.name)
    t.true(share > 0 && share < 100, `${work.name}: ${share} %`)
  }
})

test('cards are known by the names that the driver gives', (t) => {
  t.is(cardOf('NVIDIA A100-SXM4-80GB')!.bandwidth, 1.935e12)
  t.is(cardOf('NVIDIA H100 80GB HBM3')!.bandwidth, 3.35e12)
  t.is(cardOf('NVIDIA H100 PCIe')!.flops, 756e12)
  t.is(cardOf('NVIDIA GeForce RTX 4090'), null)
})

for (const script of ['test:gpu', 'bench:gpu']) {
  const run = hasGpu ? test.skip : test
  run(`npm run ${script} without a GPU says what is missing and exits 0`, async (t) => {
    const { stdout, exitCode } = await execa('npm', ['run', '--silent', script], { reject: false })
    t.is(exitCode, 0)
    t.regex(
      stdout,
      /^skipped: (This build has no CUDA part|There is no NVIDIA driver|The NVIDIA driver finds no device).*'cpu'$/m,
    )
  })
}
