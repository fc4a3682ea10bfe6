import { stat } from 'node:fs/promises'
import { type DType, loadNative } from '../native.ts'
import type { DeviceName } from './device.ts'
import { describePolicy, type LoadOptions, type PolicyDescription, resolveDevice } from './load.ts'
import type { ModelConfig } from './model-config.ts'
import { parameterShapes } from './parameters.ts'

/** What can be known of a policy without loading its weights. Sizes are in bytes. */
export interface PolicyReport {
  kind: 'policy'
  format: 'safetensors' | 'gguf'
  directory: string
  revision: string | null
  files: { name: string; bytes: number }[]
  /** number of tensors of each type in the files */
  tensorTypes: Record<string, number>
  config: ModelConfig
  parameters: number
  tokenizer: { vocabSize: number; chatTemplate: boolean; addsBos: boolean } | null
  endTokenIds: number[]
  stopStrings: string[]
  /** what `Policy.load` chooses on this machine */
  device: DeviceName
  dtype: DType
  threads: number
  memory: {
    available: number
    /** weights in memory, for each compute type */
    weights: Record<DType, number>
    /** keys and values of one token, for each compute type */
    perToken: Record<DType, number>
    /** weights, gradients and optimizer state, without activations */
    training: Record<DType, number>
  }
}

/**
 * Says what a policy is and what it needs; a hub id is downloaded.
 * @throws SsrlError as `Policy.load`
 */
export async function inspectPolicy(source: string, options: LoadOptions = {}): Promise<PolicyReport> {
  const description = await describePolicy(source, options)
  const { location, config, generationConfig, tokenizer, files } = description
  const named = [config.eosTokenIds, generationConfig.eosTokenIds]
  const { weightFiles, format, directory, revision = null } = location
  const sizes = await Promise.all(weightFiles.map((path) => stat(path)))
  return {
    kind: 'policy',
    format,
    directory,
    revision,
    files: files.map(({ path }, i) => ({ name: path.slice(directory.length + 1), bytes: sizes[i]!.size })),
    tensorTypes: countTypes(description),
    config,
    parameters: countParameters(config).all,
    tokenizer: tokenizer && {
      vocabSize: tokenizer.vocabSize,
      chatTemplate: tokenizer.hasChatTemplate,
      addsBos: tokenizer.addsBos,
    },
    endTokenIds: tokenizer ? tokenizer.endTokenIds(...named) : [...new Set(named.flat())],
    stopStrings: generationConfig.stopStrings,
    ...resolveDevice(options),
    memory: memoryNeeds(config),
  }
}

function countTypes({ files }: PolicyDescription): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const { dtype } of files.flatMap(({ tensors }) => tensors)) counts[dtype] = (counts[dtype] ?? 0) + 1
  return counts
}

function countParameters(config: ModelConfig): { all: number; inMatrices: number } {
  let all = 0
  let inMatrices = 0
  for (const shape of parameterShapes(config).values()) {
    const count = shape.reduce((product, size) => product * size, 1)
    all += count
    if (shape.length > 1) inMatrices += count
  }
  return { all, inMatrices }
}

function memoryNeeds(config: ModelConfig): PolicyReport['memory'] {
  const { all, inMatrices } = countParameters(config)
  const forTypes = (bytesOf: (size: number) => number) => ({ f32: bytesOf(4), bf16: bytesOf(2) })
  const { numLayers, numKvHeads, headDim } = config
  return {
    available: loadNative().environment().memoryAvailable,
    // f32 masters, and matrices packed for the products
    weights: forTypes((size) => 4 * all + size * inMatrices),
    perToken: forTypes((size) => 2 * numLayers * numKvHeads * headDim * size),
    // besides: a second packing for the backward pass, gradient and two moments
    training: forTypes((size) => 16 * all + 2 * size * inMatrices),
  }
}
