import { SsrlError } from '../errors.ts'
import { type Architecture, checkModelConfig, type ModelConfig } from './model-config.ts'

/** A value of a GGUF's metadata as it is read; 64-bit integers may be bigint, arrays of numbers typed. */
export type GgufValue = string | number | bigint | boolean | ArrayLike<GgufValue>

/** A GGUF's metadata by key. */
export type GgufMetadata = Readonly<Record<string, GgufValue>>

/** A value to write, with the type that readers of the format expect for its key. */
export type GgufEntry =
  | { type: 'u32'; value: number }
  | { type: 'f32'; value: number }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'string[]'; value: string[] }
  | { type: 'i32[]'; value: Int32Array }

/** A tensor of a file; the shape is row-major, outermost first. */
export interface TensorShape {
  name: string
  shape: readonly number[]
}

const architectureOf: Record<string, Architecture> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
}

/** Keys that ask for something outside the three families, with the values that ask for nothing. */
const neutralValues: [key: string, neutral: unknown[]][] = [
  ['expert_count', [0]],
  ['expert_used_count', [0]],
  ['attention.sliding_window', [0]],
  ['attention.clamp_kqv', [0]],
  ['attention.max_alibi_bias', [0]],
  ['attention.causal', [true]],
  ['attention.scale', [0]],
  ['rope.scaling.type', ['none']],
  ['rope.scaling.factor', [0, 1]],
  ['rope.scale_linear', [0, 1]],
  ['logit_scale', [0, 1]],
  ['embedding_scale', [0, 1]],
  ['residual_scale', [0, 1]],
  ['attn_logit_softcapping', [0]],
  ['final_logit_softcapping', [0]],
  ['use_parallel_residual', [false]],
]

/**
 * The config of a GGUF file's model, from its metadata and the names of its tensors.
 * @param ropeFactors the values of the tensor `rope_freqs.weight`, where the file has it
 * @throws SsrlError ERR_MODEL_FORMAT naming the key that is missing, malformed, or asks for what is not implemented
 */
export function configFromGguf(
  metadata: GgufMetadata,
  tensors: readonly TensorShape[],
  ropeFactors?: Float32Array,
): ModelConfig {
  const family = metadata['general.architecture']
  const architecture = typeof family === 'string' ? architectureOf[family] : undefined
  if (!architecture)
    refuse('general.architecture', `one of ${Object.keys(architectureOf).join(', ')}`, family)
  const read = new GgufReader(metadata, `${String(family)}.`)
  for (const [key, neutral] of neutralValues) read.only(key, neutral)
  const shapes = new Map(tensors.map(({ name, shape }) => [name, shape]))
  if (shapes.has('rope_freqs.weight') && !ropeFactors) {
    throw new SsrlError(
      'ERR_INTERNAL',
      'This file scales its rotary embedding by rope_freqs.weight, which was not passed',
    )
  }
  const hiddenSize = read.size('embedding_length')
  const numHeads = read.size('attention.head_count')
  const headDim = read.size('attention.key_length', hiddenSize / numHeads)
  read.only('attention.value_length', [headDim])
  read.only('rope.dimension_count', [headDim])
  const config: ModelConfig = {
    architecture: architecture!,
    hiddenSize,
    intermediateSize: read.size('feed_forward_length'),
    numLayers: read.size('block_count'),
    numHeads,
    numKvHeads: read.size('attention.head_count_kv', numHeads),
    headDim,
    vocabSize: vocabularySize(shapes, hiddenSize),
    maxPositions: read.size('context_length'),
    rmsNormEps: read.positive('attention.layer_norm_rms_epsilon'),
    rope: { theta: read.positive('rope.freq_base', 10000), scaling: null },
    qkvBias: shapes.has('blk.0.attn_q.bias'),
    outputBias: shapes.has('blk.0.attn_output.bias'),
    mlpBias: shapes.has('blk.0.ffn_up.bias'),
    qkNorm: shapes.has('blk.0.attn_q_norm.weight'),
    tieWordEmbeddings: !shapes.has('output.weight'),
    eosTokenIds: [],
    initializerRange: 0.02,
  }
  Object.assign(config, endTokens(metadata))
  return checkModelConfig(withRopeFactors(config, ropeFactors))
}

/** What the format calls a file whose matrices have this type (ggml's llama_ftype). */
const fileTypes = { F32: 0, F16: 1, Q8_0: 7, BF16: 32 } as const

/**
 * The model's part of a GGUF's metadata: what llama.cpp reads, in the types that it wants.
 * @param dtype of the matrices
 */
export function ggufModelMetadata(
  config: ModelConfig,
  name = 'policy',
  dtype: keyof typeof fileTypes = 'F32',
): Record<string, GgufEntry> {
  const family = Object.keys(architectureOf).find((key) => architectureOf[key] === config.architecture)!
  const u32 = (value: number): GgufEntry => ({ type: 'u32', value })
  const f32 = (value: number): GgufEntry => ({ type: 'f32', value })
  return {
    'general.architecture': { type: 'string', value: family },
    'general.type': { type: 'string', value: 'model' },
    'general.name': { type: 'string', value: name },
    'general.file_type': u32(fileTypes[dtype]),
    'general.quantization_version': u32(2),
    [`${family}.block_count`]: u32(config.numLayers),
    [`${family}.context_length`]: u32(config.maxPositions),
    [`${family}.embedding_length`]: u32(config.hiddenSize),
    [`${family}.feed_forward_length`]: u32(config.intermediateSize),
    [`${family}.attention.head_count`]: u32(config.numHeads),
    [`${family}.attention.head_count_kv`]: u32(config.numKvHeads),
    [`${family}.attention.key_length`]: u32(config.headDim),
    [`${family}.attention.value_length`]: u32(config.headDim),
    [`${family}.attention.layer_norm_rms_epsilon`]: f32(config.rmsNormEps),
    [`${family}.rope.dimension_count`]: u32(config.headDim),
    [`${family}.rope.freq_base`]: f32(config.rope.theta),
    [`${family}.vocab_size`]: u32(config.vocabSize),
  }
}

/**
 * Divisors of the rotary frequencies under Llama 3's scaling, headDim / 2 of them, as the tensor `rope_freqs.weight`
 * holds them; null without scaling. Formula: transformers, `_compute_llama3_parameters`.
 */
export function ropeFrequencyFactors(config: ModelConfig): Float32Array | null {
  if (config.ropeFactors) return config.ropeFactors
  const { scaling, theta } = config.rope
  if (!scaling) return null
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling
  return Float32Array.from({ length: config.headDim / 2 }, (_, i) => {
    const turns = originalMaxPositions / (2 * Math.PI * theta ** ((2 * i) / config.headDim))
    const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
    return 1 / (1 / factor + Math.min(1, Math.max(0, smooth)) * (1 - 1 / factor))
  })
}

/**
 * Finds the Llama 3 scaling that a GGUF's factors were made from, so that the model can be written as config.json again.
 * Where none fits to f32 precision, the factors stay.
 */
function withRopeFactors(config: ModelConfig, factors: Float32Array | undefined): ModelConfig {
  if (!factors || factors.every((factor) => factor === 1)) return config
  const largest = factors.reduce((a, b) => Math.max(a, b), 1)
  // every published Llama 3 model has these two; the context length then follows from one factor between the plateaus
  const [lowFreqFactor, highFreqFactor] = [1, 4]
  const between = factors.findIndex((factor) => factor > 1.001 && factor < largest * 0.999)
  const smooth = (1 / factors[between]! - 1 / largest) / (1 - 1 / largest)
  const turns = smooth * (highFreqFactor - lowFreqFactor) + lowFreqFactor
  const originalMaxPositions = Math.round(
    turns * 2 * Math.PI * config.rope.theta ** ((2 * between) / config.headDim),
  )
  const scaling = {
    type: 'llama3' as const,
    factor: largest,
    lowFreqFactor,
    highFreqFactor,
    originalMaxPositions,
  }
  const scaled: ModelConfig = { ...config, rope: { theta: config.rope.theta, scaling } }
  const expected = between < 0 ? null : ropeFrequencyFactors(scaled)
  const fits = expected?.every((value, i) => Math.abs(value / factors[i]! - 1) < 1e-5)
  return fits ? scaled : { ...config, ropeFactors: factors }
}

function vocabularySize(shapes: ReadonlyMap<string, readonly number[]>, hiddenSize: number) {
  const shape = shapes.get('token_embd.weight')
  if (shape?.length !== 2 || shape[1] !== hiddenSize) {
    return refuse(
      'token_embd.weight',
      `a tensor of shape [vocabulary, ${hiddenSize}]`,
      shape && `[${shape.join(', ')}]`,
    )
  }
  return shape[0]!
}

/** GGUF has no list of end tokens: end of text, of turn and of message are keys of their own. */
function endTokens(metadata: GgufMetadata): Pick<ModelConfig, 'bosTokenId' | 'eosTokenIds'> {
  const read = new GgufReader(metadata, 'tokenizer.ggml.')
  const ids = ['eos_token_id', 'eot_token_id', 'eom_token_id'].map((key) => read.id(key))
  const eosTokenIds = [...new Set(ids.filter((id) => id !== undefined))]
  const bosTokenId = read.id('bos_token_id')
  return bosTokenId === undefined ? { eosTokenIds } : { bosTokenId, eosTokenIds }
}

/** Reads typed values of a GGUF's metadata; errors are ERR_MODEL_FORMAT and name the key. */
export class GgufReader {
  readonly #metadata: GgufMetadata
  readonly #prefix: string

  constructor(metadata: GgufMetadata, prefix: string) {
    this.#metadata = metadata
    this.#prefix = prefix
  }

  value(key: string): GgufValue | undefined {
    const name = this.#prefix + key
    const value = Object.hasOwn(this.#metadata, name) ? this.#metadata[name] : undefined
    return typeof value === 'bigint' ? Number(value) : value
  }

  only(key: string, neutral: readonly unknown[]) {
    const value = this.value(key)
    if (value !== undefined && !neutral.includes(value)) {
      refuse(this.#prefix + key, neutral.map(String).join(' or '), value)
    }
  }

  size(key: string, missing?: number): number {
    const value = this.value(key) ?? missing
    if (typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= 0x7fffffff) return value
    return refuse(this.#prefix + key, 'a positive integer', value)
  }

  id(key: string): number | undefined {
    const value = this.value(key)
    // some writers put all ones where a model has no such token
    if (value === undefined || value === 0xffffffff) return undefined
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0x7fffffff)
      return value
    return refuse(this.#prefix + key, 'a token id', value)
  }

  /** A number above zero; f32 values come back as the short decimal that they were written from (1e-5, not 9.99999974e-6). */
  positive(key: string, missing?: number): number {
    const value = this.value(key) ?? missing
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
      return refuse(this.#prefix + key, 'a positive number', value)
    }
    const short = Number(value.toPrecision(7))
    return Math.fround(short) === Math.fround(value) ? short : value
  }

  string(key: string): string | undefined {
    const value = this.value(key)
    if (value === undefined || typeof value === 'string') return value
    return refuse(this.#prefix + key, 'a string', value)
  }

  boolean(key: string): boolean | undefined {
    const value = this.value(key)
    if (value === undefined || typeof value === 'boolean') return value
    return refuse(this.#prefix + key, 'true or false', value)
  }

  list(key: string): ArrayLike<GgufValue> | undefined {
    const value = this.value(key)
    if (value === undefined || (typeof value === 'object' && value !== null)) return value
    return refuse(this.#prefix + key, 'a list', value)
  }
}

function refuse(key: string, expected: string, value: unknown): never {
  throw new SsrlError(
    'ERR_MODEL_FORMAT',
    `Expected ${expected} for ${key} in the GGUF file but received ${value === undefined ? 'nothing' : String(value).slice(0, 80)}`,
  )
}
