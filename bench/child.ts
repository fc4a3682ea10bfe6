/** One process, one case, this library: reads a Job from stdin, writes a Result as the last line of stdout. */
import { readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { loadNative } from '../lib/native.ts'
import { Policy } from '../lib/policy/policy.ts'
import type { Job, Result } from './job.ts'
import { generate, prefill, regret } from './ours/generation.ts'
import { kernel, limit } from './ours/kernels.ts'
import { grpoStep, learner } from './ours/learning.ts'
import { searchBusy, searchIndex, searchQuery } from './ours/search.ts'
import { loopLag, memoryGrowth, typescriptShare } from './ours/training.ts'

type Partial = Omit<Result, 'peak' | 'version'>

async function run(job: Job): Promise<Partial> {
  switch (job.kind) {
    case 'matmul':
    case 'attention':
    case 'policy-loss':
    case 'sampling':
      return kernel(job, job)
    case 'limit':
      return limit(job, job)
    case 'search-index':
      return searchIndex(job)
    case 'search-query':
      return searchQuery(job)
    default:
      return runWithPolicy(job)
  }
}

async function runWithPolicy(job: Job): Promise<Partial> {
  const start = performance.now()
  const { dtype, threads } = job
  await using policy = await Policy.load(job.model, { dtype: dtype as 'f32' | 'bf16', threads })
  switch (job.kind) {
    case 'load':
      return { values: [(performance.now() - start) / 1000] }
    case 'generate':
      return await generate(policy, job, job)
    case 'prefill':
      return await prefill(policy, job, job)
    case 'learner':
      return await learner(policy, job, job)
    case 'grpo-step':
      return await grpoStep(policy, job, job)
    case 'loop-lag':
      return await loopLag(policy, job)
    case 'typescript':
      return await typescriptShare(policy, job)
    case 'memory':
      return await memoryGrowth(policy, job)
    case 'search-busy':
      return await searchBusy(policy, job, job)
    case 'regret':
      return await regret(policy, job)
    default:
      throw new Error(`No such work: ${job.kind}`)
  }
}

/** Bytes: the most that this process ever held resident. */
function peakMemory(): number {
  const status = readFileSync('/proc/self/status', 'utf8')
  return Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1]) * 1024
}

function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  const { dnnl, highwayTarget } = loadNative().environment()
  return `ssrl ${manifest.version}, oneDNN ${dnnl}, Highway ${highwayTarget}, Node ${process.versions.node}`
}

const job = JSON.parse(await text(process.stdin)) as Job
const result: Result = { ...(await run(job)), peak: peakMemory(), version: version() }
console.log(JSON.stringify(result))
