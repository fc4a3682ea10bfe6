import { SsrlError } from '../errors.ts'
import type { NativeTensorSource } from '../native.ts'
import type { TensorShape } from './gguf-config.ts'
import type { ModelConfig } from './model-config.ts'

const embedding = 'model.embed_tokens.weight'
const head = 'lm_head.weight'

/** GGUF's names for the modules of the whole model, and for those of a layer. */
const globalNames: [huggingFace: string, gguf: string][] = [
  ['model.embed_tokens', 'token_embd'],
  ['model.norm', 'output_norm'],
  ['lm_head', 'output'],
]
const layerNames: [huggingFace: string, gguf: string][] = [
  ['input_layernorm', 'attn_norm'],
  ['self_attn.q_proj', 'attn_q'],
  ['self_attn.k_proj', 'attn_k'],
  ['self_attn.v_proj', 'attn_v'],
  ['self_attn.o_proj', 'attn_output'],
  ['self_attn.q_norm', 'attn_q_norm'],
  ['self_attn.k_norm', 'attn_k_norm'],
  ['post_attention_layernorm', 'ffn_norm'],
  ['mlp.gate_proj', 'ffn_gate'],
  ['mlp.up_proj', 'ffn_up'],
  ['mlp.down_proj', 'ffn_down'],
]

/** Every parameter of a model by its Hugging Face name, in the order of the network; shapes are row-major, [outputs, inputs]. */
export function parameterShapes(config: ModelConfig): Map<string, number[]> {
  const { hiddenSize, vocabSize } = config
  const shapes = new Map<string, number[]>([[embedding, [vocabSize, hiddenSize]]])
  for (let layer = 0; layer < config.numLayers; layer++) {
    for (const [name, shape] of layerShapes(config)) shapes.set(`model.layers.${layer}.${name}`, shape)
  }
  shapes.set('model.norm.weight', [hiddenSize])
  if (!config.tieWordEmbeddings) shapes.set(head, [vocabSize, hiddenSize])
  return shapes
}

function layerShapes(config: ModelConfig): [string, number[]][] {
  const { hiddenSize, intermediateSize, headDim } = config
  const queries = config.numHeads * headDim
  const keys = config.numKvHeads * headDim
  const linear = (name: string, outputs: number, inputs: number, bias: boolean): [string, number[]][] => {
    const weight: [string, number[]] = [`${name}.weight`, [outputs, inputs]]
    return bias ? [weight, [`${name}.bias`, [outputs]]] : [weight]
  }
  const norm = (name: string, size: number): [string, number[]][] => [[`${name}.weight`, [size]]]
  return [
    ...norm('input_layernorm', hiddenSize),
    ...linear('self_attn.q_proj', queries, hiddenSize, config.qkvBias),
    ...linear('self_attn.k_proj', keys, hiddenSize, config.qkvBias),
    ...linear('self_attn.v_proj', keys, hiddenSize, config.qkvBias),
    ...linear('self_attn.o_proj', hiddenSize, queries, config.outputBias),
    ...(config.qkNorm ? [...norm('self_attn.q_norm', headDim), ...norm('self_attn.k_norm', headDim)] : []),
    ...norm('post_attention_layernorm', hiddenSize),
    ...linear('mlp.gate_proj', intermediateSize, hiddenSize, config.mlpBias),
    ...linear('mlp.up_proj', intermediateSize, hiddenSize, config.mlpBias),
    ...linear('mlp.down_proj', hiddenSize, intermediateSize, config.mlpBias),
  ]
}

/** GGUF's name of a parameter. @throws SsrlError ERR_INVALID_ARG for a name of no model here */
export function ggufTensorName(huggingFaceName: string): string {
  return translate(huggingFaceName, 0) ?? unknownName(huggingFaceName)
}

/** The Hugging Face name of a GGUF's tensor; null for one that is no parameter (`rope_freqs.weight`). */
export function huggingFaceName(ggufName: string): string | null {
  return translate(ggufName, 1)
}

function translate(name: string, from: 0 | 1): string | null {
  const match = /^(?:(model\.layers|blk)\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name)
  if (!match) return null
  const [, prefix, layer, module, kind] = match
  if (prefix !== undefined && prefix !== (from === 0 ? 'model.layers' : 'blk')) return null
  const names = layer === undefined ? globalNames : layerNames
  const found = names.find((pair) => pair[from] === module)?.[1 - from]
  if (found === undefined) return null
  const target = from === 0 ? 'blk' : 'model.layers'
  return layer === undefined ? `${found}.${kind}` : `${target}.${layer}.${found}.${kind}`
}

function unknownName(name: string): never {
  throw new SsrlError('ERR_INVALID_ARG', `Expected a parameter's Hugging Face name but received ${name}`)
}

/** Over how many heads GGUF permutes the rows of a parameter (q and k of Llama models, biases too); 0 for none. */
export function permutedHeads(config: ModelConfig, huggingFaceName: string): number {
  if (config.architecture !== 'LlamaForCausalLM') return 0
  if (huggingFaceName.includes('.self_attn.q_proj.')) return config.numHeads
  return huggingFaceName.includes('.self_attn.k_proj.') ? config.numKvHeads : 0
}

/**
 * Says where each parameter of a model comes from.
 * @param files the tensors of each weight file
 * @throws SsrlError ERR_MODEL_FORMAT naming a tensor that is missing, has another shape, or belongs to no parameter
 */
export function tensorSources(
  config: ModelConfig,
  format: 'safetensors' | 'gguf',
  files: readonly { tensors: readonly TensorShape[] }[],
): NativeTensorSource[] {
  const nameIn = (parameter: string) => (format === 'gguf' ? ggufTensorName(parameter) : parameter)
  const found = new Map<string, { file: number; shape: readonly number[] }>()
  files.forEach(({ tensors }, file) => {
    for (const { name, shape } of tensors) found.set(name, { file, shape })
  })
  const sources = [...parameterShapes(config)].map(([parameter, shape]): NativeTensorSource => {
    const tensor = nameIn(parameter)
    const source = found.get(tensor)
    if (!source) throw new SsrlError('ERR_MODEL_FORMAT', `The weights lack the tensor ${tensor}`)
    checkShape(tensor, shape, source.shape)
    const heads = format === 'gguf' ? permutedHeads(config, parameter) : 0
    return { parameter, file: source.file, tensor, permutedHeads: heads }
  })
  const used = new Set(sources.map(({ tensor }) => tensor))
  const extra = [...found.keys()].find((name) => !used.has(name) && !isIgnored(name, config))
  if (extra !== undefined) {
    throw new SsrlError(
      'ERR_MODEL_FORMAT',
      `The weights hold the tensor ${extra}, which a ${config.architecture} of this config has no place for`,
    )
  }
  return sources
}

function checkShape(tensor: string, expected: readonly number[], received: readonly number[]) {
  if (expected.length === received.length && expected.every((size, i) => size === received[i])) return
  throw new SsrlError(
    'ERR_MODEL_FORMAT',
    `Expected the shape [${expected.join(', ')}] for the tensor ${tensor} but the file has [${received.join(', ')}]`,
  )
}

/** Tables that are computed here, and the copy of a tied embedding. */
function isIgnored(name: string, config: ModelConfig) {
  const isTiedHead = config.tieWordEmbeddings && name === head
  return isTiedHead || name.endsWith('.rotary_emb.inv_freq') || name === 'rope_freqs.weight'
}
