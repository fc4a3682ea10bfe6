import { SsrlError } from '../errors.ts'
import { ConfigReader } from './config-reader.ts'

export const architectures = ['LlamaForCausalLM', 'Qwen2ForCausalLM', 'Qwen3ForCausalLM'] as const
export type Architecture = (typeof architectures)[number]

/** Llama 3's frequency-dependent stretching of the rotary embedding. */
export interface RopeScaling {
  type: 'llama3'
  factor: number
  lowFreqFactor: number
  highFreqFactor: number
  /** Context length in tokens that the unscaled model was trained for. */
  originalMaxPositions: number
}

/** Everything about a decoder-only transformer that its weights do not say. Sizes are in elements. */
export interface ModelConfig {
  architecture: Architecture
  hiddenSize: number
  intermediateSize: number
  numLayers: number
  numHeads: number
  numKvHeads: number
  headDim: number
  vocabSize: number
  maxPositions: number
  rmsNormEps: number
  rope: { theta: number; scaling: RopeScaling | null }
  /** Divisors of the rotary frequencies, headDim / 2 of them, as a GGUF's `rope_freqs` tensor has them; used instead of `rope.scaling`. */
  ropeFactors?: Float32Array
  qkvBias: boolean
  outputBias: boolean
  mlpBias: boolean
  qkNorm: boolean
  tieWordEmbeddings: boolean
  bosTokenId?: number
  eosTokenIds: number[]
  /** Standard deviation of random initial weights. */
  initializerRange: number
}

const byModelType: Record<string, Architecture> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
}

/** What transformers assumes when the field is missing from an architecture's config.json. */
const familyDefaults = {
  LlamaForCausalLM: { kvHeads: null, headDim: null, maxPositions: 2048 },
  Qwen2ForCausalLM: { kvHeads: 32, headDim: null, maxPositions: 32768 },
  Qwen3ForCausalLM: { kvHeads: 32, headDim: 128, maxPositions: 32768 },
} as const

/** Fields that ask for something outside the three families, with the values that ask for nothing. */
const neutralValues: [field: string, neutral: unknown[]][] = [
  ['hidden_act', ['silu', 'swish']],
  ['quantization_config', []],
  ['compression_config', []],
  ['num_experts', [0]],
  ['num_local_experts', [0]],
  ['n_routed_experts', [0]],
  ['partial_rotary_factor', [1]],
  ['attention_dropout', [0]],
  ['attn_logit_softcapping', []],
  ['final_logit_softcapping', []],
  ['logits_scaling', [1]],
  ['embedding_multiplier', [1]],
  ['residual_multiplier', [1]],
  ['attention_multiplier', []],
  ['no_rope_layers', []],
  ['is_encoder_decoder', [false]],
  ['add_cross_attention', [false]],
]

/**
 * Reads a Hugging Face config.json, with the rope fields of transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`).
 * @param json the parsed file
 * @throws SsrlError ERR_MODEL_FORMAT naming the field that is missing, malformed, or asks for what is not implemented
 */
export function parseModelConfig(json: unknown): ModelConfig {
  const reader = new ConfigReader(json, 'config.json')
  const architecture = readArchitecture(reader)
  for (const [field, neutral] of neutralValues) reader.only(field, neutral)
  const defaults = familyDefaults[architecture]
  const hiddenSize = reader.size('hidden_size')
  const numHeads = reader.size('num_attention_heads')
  const attentionBias = reader.boolean('attention_bias', false)
  const config: ModelConfig = {
    architecture,
    hiddenSize,
    intermediateSize: reader.size('intermediate_size'),
    numLayers: reader.size('num_hidden_layers'),
    numHeads,
    numKvHeads: readKvHeads(reader, numHeads, defaults.kvHeads),
    headDim: readHeadDim(reader, hiddenSize, numHeads, defaults.headDim),
    vocabSize: reader.size('vocab_size'),
    maxPositions: reader.size('max_position_embeddings', defaults.maxPositions),
    rmsNormEps: reader.positive('rms_norm_eps', 1e-6),
    rope: readRope(reader),
    qkvBias: architecture === 'Qwen2ForCausalLM' || attentionBias,
    outputBias: architecture !== 'Qwen2ForCausalLM' && attentionBias,
    mlpBias: readMlpBias(reader, architecture),
    qkNorm: architecture === 'Qwen3ForCausalLM',
    tieWordEmbeddings: reader.boolean('tie_word_embeddings', false),
    bosTokenId: reader.tokenIds('bos_token_id')[0],
    eosTokenIds: reader.tokenIds('eos_token_id'),
    initializerRange: reader.positive('initializer_range', 0.02),
  }
  if (config.bosTokenId === undefined) delete config.bosTokenId
  refuseSlidingWindow(reader, config.numLayers)
  return checkModelConfig(config)
}

/**
 * Checks what holds between the fields of a config, wherever it comes from.
 * @throws SsrlError ERR_MODEL_FORMAT naming the field
 */
export function checkModelConfig(config: ModelConfig): ModelConfig {
  const refuse = (field: string, expected: string, value: unknown) => {
    throw new SsrlError('ERR_MODEL_FORMAT', `Expected ${expected} for ${field} but received ${String(value)}`)
  }
  if (!architectures.includes(config.architecture)) {
    refuse('architecture', `one of ${architectures.join(', ')}`, config.architecture)
  }
  const sizes = [
    'hiddenSize',
    'intermediateSize',
    'numLayers',
    'numHeads',
    'numKvHeads',
    'vocabSize',
  ] as const
  for (const field of [...sizes, 'maxPositions', 'headDim'] as const) {
    const value = config[field]
    if (!Number.isInteger(value) || value < 1 || value > 0x7fffffff)
      refuse(field, 'a positive integer', value)
  }
  if (config.headDim % 2 !== 0 || config.headDim > 256) {
    refuse('head_dim', 'an even number up to 256', config.headDim)
  }
  if (config.numHeads % config.numKvHeads !== 0) {
    refuse('num_key_value_heads', `a divisor of num_attention_heads (${config.numHeads})`, config.numKvHeads)
  }
  if (config.ropeFactors && config.ropeFactors.length !== config.headDim / 2) {
    refuse('rope_freqs', `${config.headDim / 2} values (half the head size)`, config.ropeFactors.length)
  }
  for (const id of [...config.eosTokenIds, ...(config.bosTokenId === undefined ? [] : [config.bosTokenId])]) {
    if (id >= config.vocabSize) refuse('bos_token_id, eos_token_id', `ids below ${config.vocabSize}`, id)
  }
  return config
}

/**
 * The config.json of a model, as both transformers 4 and 5 open it.
 * The old rope fields are written, since version 5 still reads them and version 4 knows no others.
 */
export function toHuggingFaceConfig(
  config: ModelConfig,
  dtype: 'f32' | 'f16' | 'bf16',
): Record<string, unknown> {
  if (config.ropeFactors) {
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      "This model's rotary frequencies (rope_freqs) follow no scaling that config.json can express; export it as GGUF",
    )
  }
  const { scaling } = config.rope
  const eos = config.eosTokenIds
  return {
    architectures: [config.architecture],
    model_type: Object.keys(byModelType).find((type) => byModelType[type] === config.architecture),
    torch_dtype: { f32: 'float32', f16: 'float16', bf16: 'bfloat16' }[dtype],
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headDim,
    hidden_act: 'silu',
    max_position_embeddings: config.maxPositions,
    rms_norm_eps: config.rmsNormEps,
    rope_theta: config.rope.theta,
    rope_scaling: scaling && {
      rope_type: 'llama3',
      factor: scaling.factor,
      low_freq_factor: scaling.lowFreqFactor,
      high_freq_factor: scaling.highFreqFactor,
      original_max_position_embeddings: scaling.originalMaxPositions,
    },
    ...biasFields(config),
    tie_word_embeddings: config.tieWordEmbeddings,
    bos_token_id: config.bosTokenId ?? null,
    eos_token_id: eos.length > 1 ? [...eos] : (eos[0] ?? null),
    attention_dropout: 0,
    initializer_range: config.initializerRange,
    use_cache: true,
  }
}

/**
 * The text of config.json. Whole numbers that transformers 4 wants as floats get their `.0`, which JSON.stringify drops.
 */
export function modelConfigText(config: ModelConfig, dtype: 'f32' | 'f16' | 'bf16'): string {
  const text = JSON.stringify(toHuggingFaceConfig(config, dtype), null, 2)
  const floats = /("(?:factor|low_freq_factor|high_freq_factor|rope_theta|attention_dropout)": \d+)(?=[,\n])/g
  return `${text.replace(floats, '$1.0')}\n`
}

function biasFields(config: ModelConfig) {
  const isQwen2 = config.architecture === 'Qwen2ForCausalLM'
  if (isQwen2 ? !config.qkvBias || config.outputBias : config.qkvBias !== config.outputBias) {
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      `${config.architecture} in Hugging Face layout can't have biases on ${config.qkvBias ? 'q, k, v' : 'the attention output'} only; export it as GGUF`,
    )
  }
  if (config.mlpBias && config.architecture !== 'LlamaForCausalLM') {
    throw new SsrlError('ERR_MODEL_FORMAT', `${config.architecture} in Hugging Face layout has no mlp_bias`)
  }
  if (isQwen2) return { use_sliding_window: false }
  if (config.architecture === 'Qwen3ForCausalLM') {
    return { attention_bias: config.qkvBias, use_sliding_window: false }
  }
  return { attention_bias: config.qkvBias, mlp_bias: config.mlpBias }
}

function readArchitecture(reader: ConfigReader): Architecture {
  const known = `one of ${architectures.join(', ')}`
  const type = reader.field('model_type')
  const fromType = typeof type === 'string' ? byModelType[type] : undefined
  const listed = reader.field('architectures')
  if (listed === undefined)
    return fromType ?? reader.refuse('model_type', Object.keys(byModelType).join(', '))
  const name = Array.isArray(listed) && listed.length === 1 ? listed[0] : undefined
  const architecture = architectures.find((candidate) => candidate === name)
  if (!architecture) return reader.refuse('architectures', known)
  if (type !== undefined && fromType !== architecture)
    return reader.refuse('model_type', `that of ${architecture}`)
  return architecture
}

function readKvHeads(reader: ConfigReader, numHeads: number, missing: number | null) {
  if (reader.has('num_key_value_heads')) return reader.size('num_key_value_heads', numHeads)
  return missing ?? numHeads
}

function readHeadDim(reader: ConfigReader, hiddenSize: number, numHeads: number, missing: number | null) {
  const explicit = reader.field('head_dim')
  if (explicit !== undefined) return reader.size('head_dim')
  if (missing !== null && !reader.has('head_dim')) return missing
  if (hiddenSize % numHeads !== 0) {
    reader.refuse(
      'head_dim',
      `a value, as hidden_size (${hiddenSize}) is no multiple of num_attention_heads (${numHeads})`,
    )
  }
  return hiddenSize / numHeads
}

function readMlpBias(reader: ConfigReader, architecture: Architecture) {
  if (architecture === 'LlamaForCausalLM') return reader.boolean('mlp_bias', false)
  reader.only('mlp_bias', [false])
  return false
}

function readRope(reader: ConfigReader): ModelConfig['rope'] {
  const isNew = reader.field('rope_parameters') !== undefined
  if (isNew && reader.field('rope_scaling') !== undefined) {
    reader.refuse('rope_scaling', 'nothing, as rope_parameters is there too')
  }
  const name = isNew ? 'rope_parameters' : 'rope_scaling'
  const rope = reader.section(name)
  const theta = rope.has('rope_theta') ? rope.positive('rope_theta') : reader.positive('rope_theta', 10000)
  const kind = rope.field('rope_type') ?? rope.field('type') ?? 'default'
  rope.only('partial_rotary_factor', [1])
  if (kind === 'default') return { theta, scaling: null }
  if (kind !== 'llama3') rope.refuse(rope.has('rope_type') ? 'rope_type' : 'type', "'default' or 'llama3'")
  const scaling: RopeScaling = {
    type: 'llama3',
    factor: rope.positive('factor'),
    lowFreqFactor: rope.positive('low_freq_factor'),
    highFreqFactor: rope.positive('high_freq_factor'),
    originalMaxPositions: rope.size('original_max_position_embeddings'),
  }
  if (scaling.factor < 1) rope.refuse('factor', 'a number of at least 1')
  if (scaling.highFreqFactor <= scaling.lowFreqFactor) {
    rope.refuse('high_freq_factor', `a number above low_freq_factor (${scaling.lowFreqFactor})`)
  }
  return { theta, scaling }
}

/** Qwen's files name a window even where none is used: only what would take effect is refused. */
function refuseSlidingWindow(reader: ConfigReader, numLayers: number) {
  const layerTypes = reader.field('layer_types')
  if (layerTypes !== undefined) {
    const isFull = Array.isArray(layerTypes) && layerTypes.every((type) => type === 'full_attention')
    if (!isFull) reader.refuse('layer_types', "'full_attention' for every layer")
    return
  }
  if (!reader.boolean('use_sliding_window', false) || reader.field('sliding_window') === undefined) return
  const firstWindowed = reader.field('max_window_layers') ?? 28
  if (typeof firstWindowed !== 'number' || firstWindowed < numLayers)
    reader.refuse('use_sliding_window', 'false')
}
