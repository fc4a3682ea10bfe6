/**
 * `npm run bench:gpu`: generation, learning and GRPO steps beside PyTorch on the same GPU, then each kernel as a share of
 * what the card allows; rows go to bench/results.csv. Where there is no GPU it says what is missing and exits 0.
 */
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import { loadNative } from '../lib/native.ts'
import { firstUsable } from '../lib/policy/device.ts'
import { cardOf, gpuKernels, measureKernel } from './gpu-kernels.ts'
import { appendRows, type Row } from './results.ts'

const variants = ['generate/32', 'generate/256', 'learner/packed-8192', 'grpo-step']
const root = fileURLToPath(new URL('..', import.meta.url))

async function main(argv: string[]): Promise<void> {
  const cuda = loadNative().cuda()
  const device = firstUsable(cuda)
  if (device === null) {
    return console.log(`skipped: ${cuda.missing ?? cuda.devices[0]!.missing}`)
  }
  const name = cuda.devices[Number(device.split(':')[1])]!.name
  const environment = { SSRL_DEVICE: device, SSRL_BENCH_DEVICE: 'cuda', SSRL_BENCH_GPU: name }
  const peers = ['--peers', '--only', 'PyTorch,transformers,TRL']
  await execa('node', ['--import=tsx', 'bench/main.ts', ...variants, ...peers, ...argv], {
    cwd: root,
    env: environment,
    stdio: 'inherit',
  })
  await kernels(device, name)
}

async function kernels(device: string, name: string): Promise<void> {
  const card = cardOf(name)
  if (card === null) console.error(`No data sheet of ${name} is known: no shares of its limits`)
  const run = new Date().toISOString()
  const { stdout: commit } = await execa('git', ['rev-parse', '--short', 'HEAD'], {
    cwd: root,
    reject: false,
  })
  for (const work of gpuKernels()) {
    const { median, p20, p80, share } = await measureKernel(work, device, card)
    console.error(
      `  ${work.name}: ${median.toPrecision(4)} ms, ${share.toPrecision(3)} % of the card's limit`,
    )
    const row: Row = {
      ...{ run, commit: String(commit), cpu: name, threads: 1, variant: `gpu/${work.name}`, model: '' },
      ...{ contender: 'ssrl bf16', dtype: 'bf16', optimizer: '', unit: 'ms', median, p20, p80, samples: 20 },
      ...{ ratios: '', limitShare: share, peakMiB: Number.NaN, check: '' },
      ...{
        versions: `ssrl, CUDA ${versionOf(loadNative().cuda().runtime)}`,
        note: "limit from the card's data sheet",
      },
    }
    await appendRows([row])
  }
}

const versionOf = (version: number) => `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`

await main(process.argv.slice(2))
