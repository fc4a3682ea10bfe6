import { readFileSync } from 'node:fs'
import test from 'ava'
import {
  configFromGguf,
  type GgufEntry,
  type GgufMetadata,
  type GgufValue,
  ggufModelMetadata,
  ropeFrequencyFactors,
  type TensorShape,
} from '../../lib/policy/gguf-config.ts'
import { type ModelConfig, parseModelConfig } from '../../lib/policy/model-config.ts'
import { ggufTensorName, parameterShapes, tensorSources } from '../../lib/policy/parameters.ts'
import { readGgufHeader } from '../helpers/gguf-metadata.ts'
import { sharedPath, testWithShared } from '../helpers/shared.ts'

const sizes = {
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 512,
}
const scaling = {
  rope_type: 'llama3',
  rope_theta: 5e5,
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
}
const configs: Record<string, ModelConfig> = {
  llama: parseModelConfig({ ...sizes, model_type: 'llama', rms_norm_eps: 1e-5 }),
  'llama with biases': parseModelConfig({
    ...sizes,
    model_type: 'llama',
    attention_bias: true,
    mlp_bias: true,
  }),
  'llama 3': parseModelConfig({ ...sizes, model_type: 'llama', head_dim: 64, rope_parameters: scaling }),
  qwen2: parseModelConfig({ ...sizes, model_type: 'qwen2', tie_word_embeddings: true }),
  qwen3: parseModelConfig({ ...sizes, model_type: 'qwen3', tie_word_embeddings: true, rope_theta: 1e6 }),
}

const values = (entries: Record<string, GgufEntry>): GgufMetadata =>
  Object.fromEntries(Object.entries(entries).map(([key, { value }]) => [key, value as GgufValue]))
const tensors = (config: ModelConfig): TensorShape[] =>
  [...parameterShapes(config)].map(([name, shape]) => ({ name: ggufTensorName(name), shape }))

for (const [name, config] of Object.entries(configs)) {
  test(`a ${name} that is written as GGUF and read again is the same`, (t) => {
    const factors = ropeFrequencyFactors(config)
    const list = factors
      ? [...tensors(config), { name: 'rope_freqs.weight', shape: [factors.length] }]
      : tensors(config)
    const read = configFromGguf(values(ggufModelMetadata(config)), list, factors ?? undefined)
    t.deepEqual(read, config)
    t.is(tensorSources(read, 'gguf', [{ tensors: list }]).length, parameterShapes(config).size)
  })
}

testWithShared("SmolLM2's GGUF metadata say what its config.json says", (t) => {
  const folder = sharedPath('models/smollm2-135m-instruct')
  const { metadata, tensors: list } = readGgufHeader(`${folder}/model-q4_1.gguf`)
  const config = parseModelConfig(JSON.parse(readFileSync(`${folder}/config.json`, 'utf8')))
  t.deepEqual(configFromGguf(metadata, list), config)
  const sources = tensorSources(config, 'gguf', [{ tensors: list }])
  t.is(
    sources.find(({ parameter }) => parameter.endsWith('layers.3.self_attn.q_proj.weight'))!.permutedHeads,
    9,
  )
  t.is(
    sources.find(({ parameter }) => parameter.endsWith('layers.3.self_attn.k_proj.weight'))!.permutedHeads,
    3,
  )
  t.is(
    sources.find(({ parameter }) => parameter.endsWith('layers.3.self_attn.v_proj.weight'))!.permutedHeads,
    0,
  )
})

test('64-bit integers, end of turn and end of message are read', (t) => {
  const metadata = {
    ...values(ggufModelMetadata(configs.llama!)),
    'llama.block_count': 2n,
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
    'tokenizer.ggml.eot_token_id': 7n,
    'tokenizer.ggml.eom_token_id': 0xffffffff,
  }
  const config = configFromGguf(metadata, tensors(configs.llama!))
  t.like(config, { numLayers: 2, bosTokenId: 1 })
  t.deepEqual(config.eosTokenIds, [2, 7])
})

test("Llama 3's factors are 1 for short waves, the factor for long ones, and between for those between", (t) => {
  const factors = ropeFrequencyFactors(configs['llama 3']!)!
  t.is(factors.length, 32)
  // wavelength 2π·θ^(2i/64), against 8192/4 and 8192/1 tokens
  factors.forEach((factor, i) => {
    const wave = 2 * Math.PI * 5e5 ** (i / 32)
    if (wave < 2048) t.is(factor, 1)
    else if (wave > 8192) t.is(factor, 8)
    else t.true(factor > 1 && factor < 8)
  })
})

test('factors that follow no known scaling are kept as they are', (t) => {
  const config = configs.llama!
  const factors = Float32Array.from({ length: 8 }, (_, i) => 1 + i)
  const list = [...tensors(config), { name: 'rope_freqs.weight', shape: [8] }]
  const read = configFromGguf(values(ggufModelMetadata(config)), list, factors)
  t.deepEqual(read.ropeFactors, factors)
  t.is(read.rope.scaling, null)
  t.is(ropeFrequencyFactors(read), factors)
  const ones = configFromGguf(values(ggufModelMetadata(config)), list, new Float32Array(8).fill(1))
  t.deepEqual(ones, config)
})

const refused: [key: string, value: GgufValue | undefined][] = [
  ['general.architecture', 'gemma'],
  ['general.architecture', undefined],
  ['llama.block_count', undefined],
  ['llama.block_count', 'two'],
  ['llama.embedding_length', 0],
  ['llama.attention.head_count', [4, 4]],
  ['llama.attention.head_count_kv', 3],
  ['llama.attention.layer_norm_rms_epsilon', undefined],
  ['llama.attention.sliding_window', 4096],
  ['llama.attention.value_length', 32],
  ['llama.rope.dimension_count', 8],
  ['llama.rope.scaling.type', 'yarn'],
  ['llama.rope.scaling.factor', 4],
  ['llama.expert_count', 8],
  ['llama.logit_scale', 0.5],
  ['llama.embedding_length', 60],
]
for (const [key, value] of refused) {
  test(`${key} = ${value} is ERR_MODEL_FORMAT`, (t) => {
    const metadata: Record<string, GgufValue | undefined> = {
      ...values(ggufModelMetadata(configs.llama!)),
      [key]: value,
    }
    if (value === undefined) delete metadata[key]
    t.throws(() => configFromGguf(metadata as GgufMetadata, tensors(configs.llama!)), {
      code: 'ERR_MODEL_FORMAT',
    })
  })
}

test('a file without an embedding is ERR_MODEL_FORMAT naming the tensor', (t) => {
  const metadata = values(ggufModelMetadata(configs.llama!))
  t.throws(() => configFromGguf(metadata, []), { code: 'ERR_MODEL_FORMAT', message: /token_embd\.weight/ })
})
