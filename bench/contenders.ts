/** Who takes part in which variant, and how each is started: one process per case, a Job in, a Result out. */
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { execa } from 'execa'
import type { Sizes, Variant } from './cases.ts'
import type { Job, Result } from './job.ts'
import type { BenchModel } from './models.ts'
import { batchedBench, llamaBench } from './peers/llama-cpp.ts'
import { llamaBenchPath, nodeLlamaCppPath, pythonPath } from './peers/places.ts'
import { quickstart } from './quickstart.ts'

export interface Contender {
  name: string
  dtype: 'bf16' | 'f32' | 'q4_1' | 'autocast'
  /** of master weights and moments, where it trains */
  optimizer: string
  peer: boolean
  /** Timed repetitions of one process; a row's samples are these times the rounds. */
  repeats: number
  warmUps: number
  /** The file that it reads; null where there is none. */
  file(model: BenchModel): Promise<string | null>
  /** Why it can't take part on this machine. */
  obstacle(): string | null
  run(job: Job, variant: Variant): Promise<Result>
}

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

/** Starts a program, gives it the job, and reads the last line that it writes. */
async function ask(program: string, args: string[], job: Job): Promise<Result> {
  const environment = {
    OMP_NUM_THREADS: String(job.threads),
    HF_HUB_OFFLINE: '1',
    TOKENIZERS_PARALLELISM: 'false',
  }
  const { stdout } = await execa(program, args, { input: JSON.stringify(job), env: environment })
  return JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Result
}

const trains = (kind: Sizes['kind']) => kind === 'learner' || kind === 'grpo-step'

function ours(dtype: 'bf16' | 'f32', { kind }: Sizes): Contender {
  const child = ['--expose-gc', `--import=${here('../node_modules/tsx/dist/loader.mjs')}`, here('child.ts')]
  const isKernel = ['matmul', 'attention', 'policy-loss', 'sampling'].includes(kind)
  return {
    name: `ssrl ${dtype}`,
    dtype,
    optimizer: trains(kind) ? 'f32' : '',
    peer: false,
    repeats: isKernel ? 20 : kind === 'load' ? 1 : 2,
    warmUps: 1,
    file: async (model) => model.source,
    obstacle: () => null,
    run: (job) => (kind === 'quickstart' ? quickstart(job.threads) : ask(process.execPath, child, job)),
  }
}

function python(script: string, dtype: Contender['dtype'], details: Partial<Contender> = {}): Contender {
  return {
    name: '',
    dtype,
    optimizer: '',
    peer: true,
    repeats: 1,
    warmUps: 1,
    file: (model) => model.layout(),
    obstacle: () => (existsSync(pythonPath) ? null : 'not installed: npm run bench:peers'),
    run: (job) => ask(pythonPath, [here(`peers/python/${script}`)], job),
    ...details,
  }
}

const optimizers = { bf16: 'bf16', f32: 'f32', autocast: 'f32', q4_1: '' }

function pytorch(dtype: 'bf16' | 'f32' | 'autocast', trained: boolean): Contender {
  const name = dtype === 'autocast' ? 'PyTorch bf16 autocast' : `PyTorch ${dtype}`
  const optimizer = trained ? optimizers[dtype] : ''
  return python('learner.py', dtype, { name, optimizer })
}

function transformers(dtype: 'bf16' | 'f32'): Contender {
  return python('generate.py', dtype, { name: `transformers ${dtype}` })
}

function transformersLoad(): Contender {
  return python('load.py', 'bf16', { name: 'transformers bf16', file: (model) => model.gguf('q4_1') })
}

function trl(dtype: 'bf16' | 'f32'): Contender {
  return python('trl_step.py', dtype, { name: `TRL ${dtype}`, optimizer: optimizers[dtype] })
}

function nodeLlamaCpp(dtype: 'bf16' | 'q4_1' | 'f32'): Contender {
  return {
    ...python('', dtype),
    name: `node-llama-cpp ${dtype}`,
    file: (model) => model.gguf(dtype),
    obstacle: () => (existsSync(nodeLlamaCppPath) ? null : 'not installed: npm run bench:peers'),
    run: (job) => ask(process.execPath, [here('peers/node-llama-cpp.mjs')], job),
  }
}

function llamaCpp(dtype: 'bf16' | 'f32'): Contender {
  return {
    ...python('', dtype),
    name: `llama.cpp ${dtype}`,
    // The program warms itself up.
    warmUps: 0,
    file: (model) => model.gguf(dtype),
    obstacle: () => (existsSync(llamaBenchPath) ? null : 'not installed: npm run bench:peers'),
    run: (job, { sizes }) => batchedBench(job, llamaBench(sizes)),
  }
}

/** The index alone, of which one is made in a process. */
function searchIndex(sizes: Sizes): Contender {
  return { ...ours('f32', sizes), name: 'ssrl', repeats: 1, warmUps: 0 }
}

/** Random weights write no searches. */
const searching = (policy: string | undefined) => () =>
  policy === undefined ? 'needs --policy: random weights write no searches' : null

/** Ours first; a contender that can't do a variant at all is left out there. */
export function contendersOf(
  { sizes, model }: Variant,
  { peers, policy }: { peers: boolean; policy?: string },
): Contender[] {
  const own = [ours('bf16', sizes), ours('f32', sizes)]
  const { kind } = sizes
  if (kind === 'search-index' || kind === 'search-query') return [searchIndex(sizes)]
  if (kind === 'search-busy') return [{ ...own[0]!, obstacle: searching(policy) }]
  if (['loop-lag', 'typescript', 'memory', 'quickstart'].includes(kind)) return own.slice(0, 1)
  if (!peers) return own
  switch (kind) {
    case 'load':
      return [...own, nodeLlamaCpp('q4_1'), transformersLoad()]
    case 'prefill':
    case 'generate': {
      const gguf = [nodeLlamaCpp('bf16'), nodeLlamaCpp('q4_1')]
      return [...own, llamaCpp('bf16'), llamaCpp('f32'), ...gguf, transformers('bf16'), transformers('f32')]
    }
    case 'learner':
      if (model !== 'policy') return [own[0]!, pytorch('autocast', true), pytorch('bf16', true)]
      return [...own, pytorch('bf16', true), pytorch('autocast', true), pytorch('f32', true)]
    case 'grpo-step':
      return [...own, trl('bf16'), trl('f32')]
    default:
      return [
        ...own,
        ...(['bf16', 'f32'] as const).map((dtype) =>
          python('operations.py', dtype, { name: `PyTorch ${dtype}`, repeats: 20 }),
        ),
      ]
  }
}

/** Seconds of each product of the limit, by this library and, where it is installed, by PyTorch's oneDNN. */
export async function measureLimits(job: Job, peers: boolean): Promise<Result[]> {
  const sizes = { kind: 'matmul', rows: 1 } as const
  const all = [ours(job.dtype as 'bf16' | 'f32', sizes), python('operations.py', 'bf16')]
  const able = all.filter(({ peer, obstacle }) => !peer || (peers && obstacle() === null))
  const results: Result[] = []
  for (const contender of able) results.push(await contender.run(job, { sizes } as Variant))
  return results
}

/** Regret of greedy tokens under the f32 weights that all contenders were made from. */
export const reference = ours('f32', { kind: 'load' })
