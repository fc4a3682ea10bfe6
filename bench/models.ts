/** The models that are measured: one's own policy, or random weights; in the files that each contender reads. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { exportGguf } from '../lib/policy/export.ts'
import { describePolicy } from '../lib/policy/load.ts'
import type { ModelConfig } from '../lib/policy/model-config.ts'
import { Policy } from '../lib/policy/policy.ts'
import type { Tokenizer } from '../lib/policy/tokenizer.ts'
import type { Variant } from './cases.ts'
import { byteTokenizer } from './peers/tiny-models.ts'

const cache = fileURLToPath(new URL('.cache/models/', import.meta.url))

export interface BenchModel {
  name: string
  /** What ours loads. */
  source: string
  config: Readonly<ModelConfig>
  tokenizer: Tokenizer
  /** A folder in Hugging Face layout, f32, made at the first call. */
  layout(): Promise<string>
  /** Null where there is no such file: a Q4_1 file is only what one brings along. */
  gguf(dtype: 'f32' | 'bf16' | 'q4_1'): Promise<string | null>
}

const llama = {
  architecture: 'LlamaForCausalLM',
  headDim: 64,
  maxPositions: 8192,
  rmsNormEps: 1e-5,
  rope: { theta: 100000, scaling: null },
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  tieWordEmbeddings: true,
  bosTokenId: 1,
  eosTokenIds: [2],
  initializerRange: 0.02,
} as const

const qwen: ModelConfig = {
  ...llama,
  architecture: 'Qwen2ForCausalLM',
  eosTokenIds: [2],
  hiddenSize: 896,
  intermediateSize: 4864,
  numLayers: 24,
  numHeads: 14,
  numKvHeads: 2,
  vocabSize: 151936,
  rmsNormEps: 1e-6,
  rope: { theta: 1e6, scaling: null },
  maxPositions: 32768,
  qkvBias: true,
}

const shapes: Record<Variant['model'], { name: string; config: ModelConfig }> = {
  policy: {
    name: 'random, SmolLM2-135M shape',
    config: {
      ...llama,
      eosTokenIds: [2],
      hiddenSize: 576,
      intermediateSize: 1536,
      numLayers: 30,
      numHeads: 9,
      numKvHeads: 3,
      vocabSize: 49152,
    },
  },
  'qwen2.5-0.5b': { name: 'random, Qwen2.5-0.5B shape', config: qwen },
  'qwen2.5-0.5b-32k': {
    name: 'random, Qwen2.5-0.5B shape, vocabulary of 32,768',
    config: { ...qwen, vocabSize: 32768 },
  },
  tiny: {
    name: 'random, tiny',
    config: {
      ...llama,
      eosTokenIds: [2],
      hiddenSize: 64,
      intermediateSize: 128,
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 16,
      vocabSize: 1024,
    },
  },
}

/** @param policy folder or .gguf; without it, and for the other models, weights are random */
export async function prepareModel(kind: Variant['model'], policy?: string): Promise<BenchModel> {
  if (kind !== 'policy' || policy === undefined) return randomModel(kind)
  const { config, tokenizer } = await describePolicy(policy)
  if (!tokenizer) throw new Error(`Expected a policy with a tokenizer for the benchmark: ${policy} has none`)
  const folder = path.join(cache, `${path.basename(policy, '.gguf')}-${await fingerprint(policy)}`)
  const name = path.basename(path.extname(policy) === '.gguf' ? path.dirname(path.resolve(policy)) : policy)
  const original = await findQuantized(policy)
  return { name, source: policy, config, tokenizer, ...exportsOf(policy, folder, original) }
}

async function randomModel(kind: Variant['model']): Promise<BenchModel> {
  const { name, config } = shapes[kind]
  const tokenizer = byteTokenizer(config.vocabSize)
  const folder = path.join(cache, `random-${kind}-${digest(JSON.stringify(config))}`)
  const source = path.join(folder, 'layout')
  await once(source, async (target) => {
    await using policy = await Policy.initialize(config, { seed: 1, dtype: 'f32', tokenizer })
    await policy.save(target, { dtype: 'f32' })
  })
  return { name, source, config, tokenizer, ...exportsOf(source, folder, null) }
}

function exportsOf(
  source: string,
  folder: string,
  quantized: string | null,
): Pick<BenchModel, 'layout' | 'gguf'> {
  const made = (name: string, write: (policy: Policy, target: string) => Promise<unknown>) =>
    once(path.join(folder, name), async (target) => {
      await using policy = await Policy.load(source, { dtype: 'f32' })
      await write(policy, target)
    })
  return {
    layout: () => made('layout', (policy, target) => policy.save(target, { dtype: 'f32' })),
    gguf: async (dtype) =>
      dtype === 'q4_1'
        ? quantized
        : made(`${dtype}.gguf`, (policy, target) => exportGguf(policy, target, { dtype })),
  }
}

const underWay = new Map<string, Promise<string>>()

/** Makes a file or folder unless it is there, whole or not at all; several may ask for it at once. */
function once(target: string, make: (partial: string) => Promise<void>): Promise<string> {
  const begun = underWay.get(target) ?? makeWhole(target, make)
  underWay.set(target, begun)
  return begun.finally(() => underWay.delete(target))
}

async function makeWhole(target: string, make: (partial: string) => Promise<void>): Promise<string> {
  if (existsSync(target)) return target
  const partial = path.join(path.dirname(target), `partial-${process.pid}-${path.basename(target)}`)
  await mkdir(path.dirname(target), { recursive: true })
  try {
    await make(partial)
    // Another process may have been faster.
    if (!existsSync(target)) await rename(partial, target)
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
  return target
}

async function findQuantized(policy: string): Promise<string | null> {
  const folder = policy.endsWith('.gguf') ? path.dirname(policy) : policy
  const names = await readdir(folder)
  const name = names.find((file) => /q4_1.*\.gguf$/i.test(file))
  return name === undefined ? null : path.join(folder, name)
}

/** Of where a policy lies, how large it is and when it was written. */
async function fingerprint(policy: string): Promise<string> {
  const { size, mtimeMs } = await stat(policy)
  return digest(`${path.resolve(policy)}:${size}:${mtimeMs}`)
}

const digest = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 12)
