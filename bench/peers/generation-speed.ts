/**
 * `npm run bench:peers [-- --policy P] [--threads n]`: tokens per second of greedy decoding, prompts of about 20 tokens
 * and 64 new ones. The peers take one prompt after the other; ours does that, and also 16 rows at once, as training does.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { exportGguf } from '../../lib/policy/export.ts'
import { Policy } from '../../lib/policy/policy.ts'
import { type GreedyReply, llamaCppGreedy, missingPeers, transformersGreedy } from './peers.ts'

const { values: flags } = parseArgs({
  options: {
    policy: {
      type: 'string',
      default: fileURLToPath(
        new URL('../../../shared/models/smollm2-135m-instruct/model-q4_1.gguf', import.meta.url),
      ),
    },
    threads: { type: 'string', default: '2' },
  },
})
const threads = Number(flags.threads)
const newTokens = 64
const texts = [
  'The history of the old harbour town begins with a small group of fishermen who',
  'Question: why do the leaves of many trees turn red and yellow in autumn?\nAnswer:',
]

const missing = missingPeers()
if (missing) {
  console.error(`The peers are not installed. These commands install them:\n${missing}`)
  process.exit(1)
}
const rates: Record<string, string> = {}
const folder = await mkdtemp(path.join(tmpdir(), 'ssrl-speed-'))
try {
  await measure()
} finally {
  await rm(folder, { recursive: true })
}
console.table(rates)

async function measure(): Promise<void> {
  const layout = path.join(folder, 'layout')
  const gguf = { f32: path.join(folder, 'f32.gguf'), q8_0: path.join(folder, 'q8_0.gguf') }
  let prompts: number[][] = []
  for (const dtype of ['f32', 'bf16'] as const) {
    const policy = await Policy.load(flags.policy, { dtype, threads })
    prompts = texts.map((text) => [...policy.tokenizer!.encode(text)])
    if (dtype === 'f32') {
      await policy.save(layout, { dtype })
      await exportGguf(policy, gguf.f32, { dtype })
      await exportGguf(policy, gguf.q8_0, { dtype: 'q8_0' })
    }
    await ours(policy, prompts, 1)
    await ours(policy, prompts, 16)
    await policy.dispose()
  }
  const request = { prompts, newTokens, threads, texts: [] }
  report('transformers, f32', await transformersGreedy({ ...request, model: layout }))
  report('node-llama-cpp, f32', await llamaCppGreedy({ ...request, model: gguf.f32 }))
  report('node-llama-cpp, q8_0', await llamaCppGreedy({ ...request, model: gguf.q8_0 }))
}

async function ours(policy: Policy, prompts: number[][], rows: number): Promise<void> {
  const start = performance.now()
  let tokens = 0
  for (const prompt of prompts) {
    const completions = await policy.generate([{ tokens: Int32Array.from(prompt), n: rows }], {
      temperature: 0,
      maxNewTokens: newTokens,
      ignoreEnd: true,
    })
    tokens += completions.reduce((sum, completion) => sum + completion.tokens.length, 0)
  }
  const seconds = (performance.now() - start) / 1000
  rates[`ours, ${policy.dtype}, ${rows} at once`] = `${(tokens / seconds).toFixed(1)} tokens/s`
}

function report(name: string, { tokens, seconds }: GreedyReply): void {
  rates[name] = `${(tokens.flat().length / seconds).toFixed(1)} tokens/s`
}
