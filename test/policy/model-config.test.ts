import { readFileSync } from 'node:fs'
import test from 'ava'
import { modelConfigText, parseModelConfig, toHuggingFaceConfig } from '../../lib/policy/model-config.ts'
import { parameterShapes } from '../../lib/policy/parameters.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const llama = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  vocab_size: 512,
}
const qwen2 = { ...llama, architectures: ['Qwen2ForCausalLM'], model_type: 'qwen2', num_key_value_heads: 2 }
const qwen3 = { ...llama, architectures: ['Qwen3ForCausalLM'], model_type: 'qwen3', num_key_value_heads: 2 }
const llama3Rope = {
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
}
const llama3Scaling = {
  type: 'llama3' as const,
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalMaxPositions: 8192,
}

test('fields that are missing get the defaults of transformers for their architecture', (t) => {
  const fromLlama = parseModelConfig(llama)
  t.deepEqual(fromLlama, {
    architecture: 'LlamaForCausalLM',
    hiddenSize: 64,
    intermediateSize: 160,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 4,
    headDim: 16,
    vocabSize: 512,
    maxPositions: 2048,
    rmsNormEps: 1e-6,
    rope: { theta: 10000, scaling: null },
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    tieWordEmbeddings: false,
    eosTokenIds: [],
    initializerRange: 0.02,
  })
  const fromQwen2 = parseModelConfig(qwen2)
  t.like(fromQwen2, { headDim: 16, qkvBias: true, outputBias: false, qkNorm: false, maxPositions: 32768 })
  const fromQwen3 = parseModelConfig(qwen3)
  t.like(fromQwen3, { headDim: 128, qkvBias: false, outputBias: false, qkNorm: true, maxPositions: 32768 })
  t.is(parseModelConfig({ ...qwen2, num_attention_heads: 32, num_key_value_heads: undefined }).numKvHeads, 32)
  t.is(parseModelConfig({ ...qwen2, num_key_value_heads: null }).numKvHeads, 4)
})

test('biases are where the architecture puts them', (t) => {
  t.like(parseModelConfig({ ...llama, attention_bias: true }), {
    qkvBias: true,
    outputBias: true,
    mlpBias: false,
  })
  t.like(parseModelConfig({ ...llama, mlp_bias: true }), { qkvBias: false, outputBias: false, mlpBias: true })
  t.like(parseModelConfig({ ...qwen3, attention_bias: true }), { qkvBias: true, outputBias: true })
})

const ropes: [
  title: string,
  fields: Record<string, unknown>,
  theta: number,
  scaling: typeof llama3Scaling | null,
][] = [
  ['old style', { rope_theta: 500000, rope_scaling: null }, 500000, null],
  [
    'old style with scaling',
    { rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...llama3Rope } },
    5e5,
    llama3Scaling,
  ],
  [
    'oldest style, with type',
    { rope_theta: 5e5, rope_scaling: { type: 'llama3', ...llama3Rope } },
    5e5,
    llama3Scaling,
  ],
  ['new style', { rope_parameters: { rope_type: 'default', rope_theta: 7 } }, 7, null],
  [
    'new style with scaling',
    { rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3Rope } },
    5e5,
    llama3Scaling,
  ],
  ['new style with theta outside', { rope_theta: 9, rope_parameters: { rope_type: 'default' } }, 9, null],
]
for (const [title, fields, theta, scaling] of ropes) {
  test(`rope fields of the ${title} are read`, (t) => {
    t.deepEqual(parseModelConfig({ ...llama, ...fields }).rope, { theta, scaling })
  })
}

test('end tokens may be one or many', (t) => {
  t.deepEqual(parseModelConfig({ ...llama, eos_token_id: 2, bos_token_id: 1 }).eosTokenIds, [2])
  t.deepEqual(parseModelConfig({ ...llama, eos_token_id: [7, 2, 7] }).eosTokenIds, [7, 2])
  t.is(parseModelConfig({ ...llama, bos_token_id: null }).bosTokenId, undefined)
})

test('a window that takes no effect is no obstacle', (t) => {
  const idle = { sliding_window: 4096, use_sliding_window: false, max_window_layers: 28 }
  t.notThrows(() => parseModelConfig({ ...qwen2, ...idle }))
  t.notThrows(() => parseModelConfig({ ...qwen2, ...idle, use_sliding_window: true }))
  t.notThrows(() =>
    parseModelConfig({ ...qwen2, use_sliding_window: true, sliding_window: null, max_window_layers: 0 }),
  )
  t.notThrows(() => parseModelConfig({ ...qwen2, layer_types: ['full_attention', 'full_attention'] }))
})

/** What is refused: the fields, and the one that the message must name. */
const refused: [fields: Record<string, unknown>, named: string][] = [
  [{ architectures: ['MistralForCausalLM'], model_type: 'mistral' }, 'architectures'],
  [{ architectures: ['LlamaForCausalLM', 'Qwen2ForCausalLM'] }, 'architectures'],
  [{ architectures: undefined, model_type: 'gpt2' }, 'model_type'],
  [{ model_type: 'qwen2' }, 'model_type'],
  [{ hidden_act: 'gelu' }, 'hidden_act'],
  [{ hidden_size: undefined }, 'hidden_size'],
  [{ hidden_size: '64' }, 'hidden_size'],
  [{ hidden_size: 64.5 }, 'hidden_size'],
  [{ hidden_size: 2 ** 31 }, 'hidden_size'],
  [{ intermediate_size: 0 }, 'intermediate_size'],
  [{ num_hidden_layers: -1 }, 'num_hidden_layers'],
  [{ num_attention_heads: null }, 'num_attention_heads'],
  [{ num_key_value_heads: 3 }, 'num_key_value_heads'],
  [{ head_dim: 15 }, 'head_dim'],
  [{ head_dim: 258 }, 'head_dim'],
  [{ hidden_size: 66 }, 'head_dim'],
  [{ vocab_size: [] }, 'vocab_size'],
  [{ rms_norm_eps: 0 }, 'rms_norm_eps'],
  [{ rms_norm_eps: Number.NaN }, 'rms_norm_eps'],
  [{ rope_theta: 'x' }, 'rope_theta'],
  [{ rope_scaling: { type: 'linear', factor: 2 } }, 'rope_scaling.type'],
  [{ rope_scaling: { rope_type: 'yarn', factor: 2 } }, 'rope_scaling.rope_type'],
  [{ rope_scaling: { type: 'dynamic', factor: 2 } }, 'rope_scaling.type'],
  [{ rope_scaling: 7 }, 'config.json'],
  [{ rope_parameters: { rope_type: 'longrope', rope_theta: 1 } }, 'rope_parameters.rope_type'],
  [
    { rope_parameters: { rope_type: 'llama3', rope_theta: 1, ...llama3Rope, factor: undefined } },
    'rope_parameters.factor',
  ],
  [
    { rope_parameters: { rope_type: 'llama3', rope_theta: 1, ...llama3Rope, factor: 0.5 } },
    'rope_parameters.factor',
  ],
  [
    { rope_parameters: { rope_type: 'llama3', ...llama3Rope, high_freq_factor: 1 } },
    'rope_parameters.high_freq_factor',
  ],
  [{ rope_parameters: { rope_theta: 1 }, rope_scaling: { type: 'linear' } }, 'rope_scaling'],
  [{ rope_parameters: { partial_rotary_factor: 0.5 } }, 'rope_parameters.partial_rotary_factor'],
  [{ partial_rotary_factor: 0.5 }, 'partial_rotary_factor'],
  [{ quantization_config: { quant_method: 'gptq' } }, 'quantization_config'],
  [{ num_local_experts: 8 }, 'num_local_experts'],
  [{ num_experts: 128 }, 'num_experts'],
  [{ layer_types: ['full_attention', 'sliding_attention'] }, 'layer_types'],
  [{ use_sliding_window: true, sliding_window: 4096, max_window_layers: 1 }, 'use_sliding_window'],
  [{ attention_bias: 'yes' }, 'attention_bias'],
  [{ tie_word_embeddings: 1 }, 'tie_word_embeddings'],
  [{ attention_dropout: 0.1 }, 'attention_dropout'],
  [{ eos_token_id: 'x' }, 'eos_token_id'],
  [{ eos_token_id: 512 }, 'eos_token_id'],
  [{ bos_token_id: -1 }, 'bos_token_id'],
]
for (const [fields, named] of refused) {
  test(`${JSON.stringify(fields)} is ERR_MODEL_FORMAT naming ${named}`, (t) => {
    const error = t.throws(() => parseModelConfig({ ...llama, ...fields }), { code: 'ERR_MODEL_FORMAT' })
    t.true(error.message.includes(named), error.message)
  })
}

test('mlp_bias is refused where the architecture has none', (t) => {
  t.throws(() => parseModelConfig({ ...qwen2, mlp_bias: true }), {
    code: 'ERR_MODEL_FORMAT',
    message: /mlp_bias/,
  })
})

test('what is no object is ERR_MODEL_FORMAT', (t) => {
  for (const json of [null, undefined, 'x', [], 7])
    t.throws(() => parseModelConfig(json), { code: 'ERR_MODEL_FORMAT' })
})

test('a config that is written and read again is the same', (t) => {
  const configs = [
    { ...llama, bos_token_id: 1, eos_token_id: [2, 3], mlp_bias: true, attention_bias: true, head_dim: 32 },
    {
      ...llama,
      rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3Rope },
      tie_word_embeddings: true,
    },
    { ...qwen2, eos_token_id: 2 },
    { ...qwen3, rms_norm_eps: 1e-5, initializer_range: 0.1 },
  ].map(parseModelConfig)
  for (const config of configs) t.deepEqual(parseModelConfig(toHuggingFaceConfig(config, 'bf16')), config)
})

test('the text of config.json has floats where transformers 4 asks for them', (t) => {
  const rope = { rope_type: 'llama3', rope_theta: 5e5, ...llama3Rope }
  const config = parseModelConfig({ ...llama, rope_parameters: rope })
  const text = modelConfigText(config, 'f32')
  for (const field of [
    '"rope_theta": 500000.0,',
    '"factor": 8.0,',
    '"low_freq_factor": 1.0,',
    '"high_freq_factor": 4.0,',
  ]) {
    t.true(text.includes(field), field)
  }
  t.true(text.includes('"original_max_position_embeddings": 8192\n'))
  t.deepEqual(parseModelConfig(JSON.parse(text)), config)
})

test('what config.json has no words for is refused', (t) => {
  const config = parseModelConfig(llama)
  const refuse = { code: 'ERR_MODEL_FORMAT', message: /GGUF/ }
  t.throws(() => toHuggingFaceConfig({ ...config, ropeFactors: new Float32Array(8).fill(2) }, 'f32'), refuse)
  t.throws(() => toHuggingFaceConfig({ ...config, qkvBias: true }, 'f32'), refuse)
  t.throws(() => toHuggingFaceConfig({ ...parseModelConfig(qwen2), qkvBias: false }, 'f32'), refuse)
})

for (const name of ['llama', 'llama3-rope', 'qwen2', 'qwen3']) {
  testWithShared(`the parameters of the fixture ${name} are those that its config asks for`, (t) => {
    const config = parseModelConfig(
      JSON.parse(readFileSync(sharedPath('fixtures/models', name, 'config.json'), 'utf8')),
    )
    const file = readFileSync(sharedPath('fixtures/models', name, 'model.safetensors'))
    const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString())
    delete header.__metadata__
    const shapes = Object.entries<{ shape: number[] }>(header).map(
      ([key, { shape }]) => [key, shape] as const,
    )
    t.deepEqual(
      new Map([...parameterShapes(config)].sort()),
      new Map(shapes.map(([k, s]) => [k, s] as [string, number[]]).sort()),
    )
  })
}
